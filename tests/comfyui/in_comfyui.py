"""Run inside a real ComfyUI, whose folder is the first argument: `names MANIFEST VAE_MANIFEST` holds ours against the modules that it
builds, and `workflow PACK FILE OUTPUT` has its own executor run a prompt, as its API takes it. Prints what came out as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace

HERE, WHAT, *ARGUMENTS = sys.argv[1:]
sys.path.insert(0, HERE)
sys.argv = ["main.py", "--cpu"]

import comfy.options  # noqa: E402  # pyright: ignore[reportMissingImports]

comfy.options.enable_args_parsing()


def names(transformer: str, vae: str) -> dict[str, object]:
    import comfy.ldm.hunyuan_video.model as theirs  # pyright: ignore[reportMissingImports]
    import comfy.ops  # pyright: ignore[reportMissingImports]
    import comfy.sd  # pyright: ignore[reportMissingImports]
    import torch
    from comfy import model_detection  # pyright: ignore[reportMissingImports]

    def tensors(path: str, device: str) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(shape, device=device) for name, shape in json.loads(Path(path).read_text())["tensors"].items()}

    state = tensors(transformer, "meta")
    found = model_detection.detect_unet_config(state, "")
    config = model_detection.model_config_from_unet_config(found, state)
    sizes = {name: value for name, value in found.items() if name != "image_model"}
    with torch.device("meta"):
        model = theirs.HunyuanVideo(**sizes, operations=comfy.ops.disable_weight_init, device="meta")
    shapes = {name: [*tensor.shape] for name, tensor in model.state_dict().items()}
    renamed = {name: [*tensor.shape] for name, tensor in config.process_unet_state_dict(dict(state)).items()}
    return {
        "model": type(config).__name__,
        "same": shapes == renamed,
        "count": len(shapes),
        "vae_channels": comfy.sd.VAE(sd=tensors(vae, "cpu")).latent_channels,
    }


def workflow(pack: str, file: str, output: str) -> dict[str, object]:
    import execution  # pyright: ignore[reportMissingImports]
    import folder_paths  # pyright: ignore[reportMissingImports]
    import nodes  # pyright: ignore[reportMissingImports]

    folder_paths.set_output_directory(output)
    said: list[str] = []
    server = SimpleNamespace(client_id=None, last_node_id=None, last_prompt_id=None, send_sync=lambda event, *_: said.append(str(event)))
    prompt = json.loads(Path(file).read_text())

    async def run() -> tuple[object, ...]:
        assert await nodes.load_custom_node(pack, module_parent="custom_nodes")
        return await execution.validate_prompt("1", prompt, None)

    valid, error, outputs, node_errors = asyncio.run(run())
    assert valid, (error, node_errors)
    executor = execution.PromptExecutor(server, cache_args={"lru": 0, "ram": 0, "ram_inactive": 0})
    executor.execute(prompt, "1", {}, outputs)
    return {"success": executor.success, "said": said, "files": sorted(str(path) for path in Path(output).rglob("*.mp4"))}


print(json.dumps({"names": names, "workflow": workflow}[WHAT](*ARGUMENTS)))
