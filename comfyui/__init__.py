"""HunyuanVideo in ComfyUI: nodes that build a `hunyuan_video.request.Request`, and drive the pipeline that makes it."""

from __future__ import annotations

from . import host, pipelines
from .conditioning import Continue, FirstFrame, Keyframe, VideoToVideo
from .decode import Decode, Encode
from .generate import Generate
from .load import Load, Lora
from .prompt import Prompt
from .sample import Sample
from .save import Save

WEB_DIRECTORY = "./web"  # with the nodes' help


class Extension(host.ComfyExtension):
    """What ComfyUI registers."""

    async def get_node_list(self) -> list[type[host.io.ComfyNode]]:
        return [Load, Lora, Prompt, FirstFrame, Keyframe, VideoToVideo, Continue, Sample, Decode, Encode, Save, Generate]


async def comfy_entrypoint() -> Extension:
    """Called once, when ComfyUI starts."""
    host.add_weights_folder()
    host.when_memory_is_freed(pipelines.release)
    return Extension()
