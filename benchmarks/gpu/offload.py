"""Part 7: the whole random 13B on the GPU, then streamed block by block, beside what `plan` says; and how fast models move.

Its 25.6 GB are made where they compute. A step of 33 frames of 544x960 does 510 TFLOP, about 1.3 s on an H100 with FlashAttention 2;
the blocks need 0.5 to 1 s over PCIe 5.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from measure import deviation
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpu.attention import best, kernel
from gpu.models import Inputs, config_of, random_transformer
from gpu.part import Part
from hunyuan_video import plan
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.transformer import HunyuanVideoTransformer, SingleStreamBlock
from hunyuan_video.transforms.offload import offload_blocks, on_device, tensors_of

# What a step is measured at: frames, height and width. At the second, copying the blocks takes longer than computing.
VIDEOS = ((33, 544, 960), (1, 544, 960))
TINY_VIDEOS = ((5, 32, 48),)


Video = tuple[int, int, int]


def plan_bytes(part: Part) -> dict[tuple[Video, str], int]:
    """Of denoising; where whole models move, the plan counts the transformer alone, as it is here without offload."""
    found: dict[tuple[Video, str], int] = {}
    for video in TINY_VIDEOS if part.rehearse else VIDEOS:
        with part.case("offload-plan", video="x".join(map(str, video))) as row:
            sampling = FullSampling(num_frames=video[0], height=video[1], width=video[2])
            runtimes = [Runtime(offload="models"), Runtime(offload="blocks")]
            predictions = plan.predict(plan.Parts(transformer=config_of(part)), sampling, runtimes)
            row.update(none=predictions[0].stages["denoise"], blocks=predictions[1].stages["denoise"])
            found |= {(video, offload): row[offload] for offload in ("none", "blocks")}
    return found


def grid_of(video: Video) -> tuple[int, int, int]:
    frames, height, width = video
    return (frames - 1) // 4 + 1, height // 8, width // 8


@torch.no_grad()
def measure_steps(
    part: Part,
    offload: str,
    model: HunyuanVideoTransformer,
    streamed: list[Tensor],
    expected: dict[Video, Tensor],
    planned: dict[tuple[Video, str], int],
) -> None:
    """Rows of one step's time and of the GPU's fullest moment, weights included. What is resident comes first, and is what is expected."""
    for video in TINY_VIDEOS if part.rehearse else VIDEOS:
        there = on_device(model, part.device, streamed, repeated=True)
        with part.case("offload", video="x".join(map(str, video)), offload=offload) as row, there:
            call = Inputs(model.config, grid_of(video), part.device, torch.bfloat16).ours(model)
            part.forget_peak()
            out = call()
            row.update(part.peak())
            if (video, offload) in planned:
                row["planned_gb"] = planned[video, offload] / 1e9
            row["identical"] = torch.equal(out, expected.setdefault(video, out))
            row["difference"] = deviation(out, expected[video])
            row.update(part.timed(call, 2.0))


def moving(part: Part, what: str, module: nn.Module) -> None:
    """A row of how fast a module gets to the device, as `--offload models` moves each model for every video."""
    with part.case("offload-moves", home=what) as row:
        size = sum(tensor.nbytes for tensor in tensors_of(module))
        start = time.perf_counter()
        with on_device(module, part.device) if part.device.type == "cuda" else nullcontext():
            part.finish()
            seconds = time.perf_counter() - start
        row.update(gb=size / 1e9, seconds=seconds, gb_per_second=size / 1e9 / max(seconds, 1e-9))


def some_blocks(part: Part, device: torch.device | str) -> nn.ModuleList:
    """2.3 GB of the 13B."""
    with torch.device("meta"):
        blocks = nn.ModuleList(SingleStreamBlock(config_of(part)) for _ in range(8)).to(torch.bfloat16)
    return blocks.to_empty(device=device).requires_grad_(False)


def measure_moves(part: Part) -> None:
    blocks = some_blocks(part, "cpu")
    for parameter in blocks.parameters():
        parameter.data.zero_()  # so that every page is there
    moving(part, "ordinary memory", blocks)
    moving(part, "ordinary memory, again", blocks)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "blocks.safetensors"
        save_file(blocks.state_dict(), file)
        blocks.load_state_dict(load_file(file), assign=True)
        moving(part, "a mapped file in the page cache", blocks)


def measure(part: Part) -> None:
    model = random_transformer(config_of(part), part.device)
    use_attention(model, kernel(best(part), part.device))
    expected: dict[Video, Tensor] = {}
    planned = plan_bytes(part)
    measure_steps(part, "none", model, [], expected, planned)
    streamed: list[Tensor] = []
    with part.case("offload-start", what="blocks into page-locked memory") as row:
        blocks = [*model.double_blocks, *model.single_blocks]
        start = time.perf_counter()
        streamed = offload_blocks(blocks, part.device)
        row.update(seconds=time.perf_counter() - start, gb=sum(tensor.nbytes for tensor in streamed) / 1e9)
    measure_steps(part, "blocks", model, streamed, expected, planned)
    moving(part, "page-locked memory, all blocks", nn.ModuleList(blocks))


def main() -> None:
    part = Part("offload")
    measure(part)
    measure_moves(part)


if __name__ == "__main__":
    main()
