"""HunyuanVideo: text to video.

from hunyuan_video import HunyuanVideo, Sampling, save_video

pipe = HunyuanVideo.load()
video = pipe("A cat walks on the grass, realistic style.")
save_video(video.frames, "cat.mp4", metadata=video.provenance.to_json())
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from hunyuan_video.config import FullSampling, Limits, Runtime, Sampling
    from hunyuan_video.pipeline import HunyuanVideo
    from hunyuan_video.request import Adapter, Clip, Keyframe, Picture, Request
    from hunyuan_video.video import save_video

__all__ = [
    "Adapter", "Clip", "FullSampling", "HunyuanVideo", "Keyframe", "Limits", "Picture", "Request", "Runtime", "Sampling", "__version__",
    "save_video",
]  # fmt: skip

_LAZY = {
    **dict.fromkeys(("FullSampling", "Limits", "Runtime", "Sampling"), "hunyuan_video.config"),
    **dict.fromkeys(("Adapter", "Clip", "Keyframe", "Picture", "Request"), "hunyuan_video.request"),
    "HunyuanVideo": "hunyuan_video.pipeline",
    "save_video": "hunyuan_video.video",
}  # some import torch; `import hunyuan_video` imports nothing


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata

    if name == "__version__":
        try:
            return metadata.version("hunyuan-video")
        except metadata.PackageNotFoundError:  # a source tree on PYTHONPATH has none that would be sure
            return "not installed"
    if name not in _LAZY:
        raise AttributeError(f"module 'hunyuan_video' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
