"""What each rank of one video really sends and computes in a step, beside what distributed/cost.py says.

    python benchmarks/parallel.py --ranks 4                                          # CPU: starts four gloo processes, a small model
    torchrun --nproc-per-node 8 benchmarks/parallel.py --device cuda --size 129x720x1280       # GPUs: the 13B (random), and its time

Every exchange is seen where PyTorch dispatches it (c10d), so that none can be forgotten; what a rank keeps for itself is not sent.
Operations are those of PyTorch's own counter. Each pair of degrees is one row.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date, timedelta
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measure import randomize
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hunyuan_video import plan
from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed import sequence
from hunyuan_video.distributed.cost import CARDS, Step, all_degrees, step_seconds
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import CPU, Degrees, process_group, resolve_device, world_of_group
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.attention import matmul, sdpa
from hunyuan_video.models.text import MAX_TEXT_TOKENS
from hunyuan_video.models.transformer import Condition, HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.transforms.ahead import ahead
from hunyuan_video.transforms.lean import lean_blocks

PATIENCE = timedelta(seconds=120)
HEAD_DIM = 16
LEVEL = 700.0  # of noise, in 0…1000
OFFICIAL = (129, 720, 1280)


def small(heads: int) -> TransformerConfig:
    """A model that a CPU runs, with so many heads."""
    return TransformerConfig(
        hidden_size=HEAD_DIM * heads,
        num_heads=heads,
        num_double_blocks=1,
        num_single_blocks=2,
        rope_dims=(4, 6, 6),
        text_dim=64,
        pooled_dim=32,
    )


class Exchanged(TorchDispatchMode):
    """Counts the bytes that this rank sends to others, by what sends them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if func.namespace == "c10d" and name not in ("recv_", "barrier"):
            self.bytes[name] = self.bytes.get(name, 0) + self._sent(name, args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _sent(name: str, args: Any) -> int:
        if name == "send":
            return sum(tensor.nbytes for tensor in args[0])
        if name == "alltoall_base_":
            _, sent, group, _, splits = args[:5]
            own = splits[dist.ProcessGroup.unbox(group).rank()]
            return (sent.numel() - own) * sent.itemsize
        raise AssertionError(f"{name} is no exchange that sequence parallelism makes")


@contextmanager
def widths_gathered() -> Iterator[set[int]]:
    """The widths of the tokens that all ranks get of all others, in the block."""
    found: set[int] = set()
    gather = sequence.gather

    def seen(x: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
        found.add(x.shape[-1])
        return gather(x, sizes, group)

    with patch.object(sequence, "gather", seen):
        yield found


def inputs(
    model: HunyuanVideoTransformer,
    latents: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    prepare: Callable[..., Condition] | None = None,
) -> Any:
    """Of a step: noise, its level and a condition, which may be one that is prepared; the same on each rank."""
    config, draw = model.config, torch.Generator().manual_seed(1)
    states, pooled = (torch.randn(1, *shape, generator=draw) for shape in ((MAX_TEXT_TOKENS, config.text_dim), (config.pooled_dim,)))
    mask, guidance = torch.ones(1, MAX_TEXT_TOKENS, dtype=torch.bool), torch.full((1,), 6000.0, device=device)
    given = states.to(device, dtype), mask, pooled.to(device, dtype), guidance
    condition = model.condition(*given) if prepare is None else prepare(0, *given)
    x = torch.randn(1, config.in_channels, *latents, generator=draw)
    return x.to(device), torch.full((1,), LEVEL, device=device), condition


@torch.no_grad()
def measure(
    config: TransformerConfig, latents: tuple[int, int, int], degrees: Degrees, wire: Wire, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """One step on this rank, counted, and as it should be."""
    world = world_of_group(device, degrees)
    assert world.sequence is not None
    with device:
        model = randomize(HunyuanVideoTransformer(config).to(dtype), std=0.02)
    use_attention(model, matmul)  # all of whose products are counted
    sequence.parallelize_sequence(model, world.sequence, wire)
    x, t, condition = inputs(model, latents, dtype, device)
    with widths_gathered() as gathered, Exchanged() as exchanged, FlopCounterMode(display=False) as operations:
        model(x, t, condition)
    step = Step(math.prod(config.grid(x.shape)), MAX_TEXT_TOKENS, degrees, wire, dtype.itemsize, config=config)
    found: dict[str, Any] = {
        "sent": exchanged.bytes,
        "formula": dict(zip(("there", "back", "ring", "velocity"), step.sent(world.rank), strict=True)),
        "operations": operations.get_total_flops(),
        "counted": step.work(world.rank).total,
        "gathered": sorted(gathered),
        "planned": planned_memory(config, x.shape, degrees, wire, dtype),
    }
    use_attention(model, sdpa)
    lean_blocks(model)
    level = torch.full((1,), LEVEL, device=device)
    with LiveBytes(model) as seen, ahead(model, [level], (), lambda _: nullcontext()) as prepare:
        given = []  # which the pipeline still has

        def prepare_and_keep(*what: Any) -> Condition:
            given.append(what)
            return prepare(*what)

        model(*inputs(model, latents, dtype, device, prepare_and_keep))
    found["memory"] = seen.most
    if device.type == "cuda":
        found["seconds"] = _timed(lambda: model(x, t, condition))
    return found


def planned_memory(config: TransformerConfig, shape: Sequence[int], degrees: Degrees, wire: Wire, dtype: torch.dtype) -> int:
    """Bytes at the first rank's fullest moment of a step, beside weights, as `hunyuan-video plan` counts them: nothing is computed."""
    with plan.META:
        model = HunyuanVideoTransformer(config).to(dtype)
    assemble(Models(model), Runtime(attention="sdpa", wire=wire.value), plan.first_of(degrees))
    return plan.count(model, lambda: plan.denoise(model, shape)).most


def _timed(step: Any, repeats: int = 3) -> float:
    """Seconds of a step on the slowest rank: median, after one that warms up."""
    step()
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        dist.barrier()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        mine = torch.tensor(time.perf_counter() - start, device="cuda")
        dist.all_reduce(mine, dist.ReduceOp.MAX)
        taken.append(mine.item())
    return sorted(taken)[repeats // 2]


def all_rows(
    config: TransformerConfig, latents: tuple[int, int, int], grids: list[Degrees], dtype: torch.dtype, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Each pair of degrees with each kind of wire, on this rank."""
    return {
        f"{degrees.ulysses} x {degrees.ring} {wire.value}": measure(config, latents, degrees, wire, dtype, device)
        for degrees in grids
        for wire in Wire
    }


def _spawned(rank: int, ranks: int, folder: Path, config: TransformerConfig, latents: tuple[int, int, int], dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks, timeout=PATIENCE)
    torch.save(all_rows(config, latents, all_degrees(ranks, config.num_heads), dtype, CPU), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def on_gloo(config: TransformerConfig, latents: tuple[int, int, int], ranks: int, dtype: torch.dtype) -> list[dict[str, dict[str, Any]]]:
    """What each of so many processes on this machine finds."""
    with tempfile.TemporaryDirectory() as folder:
        set_forkserver_preload(["hunyuan_video.plan"])  # imported once for all
        mp.start_processes(_spawned, (ranks, Path(folder), config, latents, dtype), nprocs=ranks, start_method="forkserver")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def table(found: list[dict[str, dict[str, Any]]], config: TransformerConfig, latents: tuple[int, int, int], card: str) -> str:
    """Markdown: of each row the rank that sends most, and the one that has most to do."""
    largest = FullSampling(height=OFFICIAL[1], width=OFFICIAL[2], num_frames=OFFICIAL[0])
    tokens = math.prod(TransformerConfig().grid((1, 16, *_latents(largest))))
    here = math.prod(config.grid((1, 1, *latents)))
    alone = Step(here, MAX_TEXT_TOKENS, config=config).work(0).total
    timed = "seconds" in next(iter(found[0].values()))
    heads = ["Ulysses × ring", "wire", "MB sent by one rank", "by formula", "fullest rank's work", "of the 13B at 720p"]
    heads += ["values gathered a token", "MB of memory", "planned", *["seconds", "predicted"] * timed]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in found[0]:
        each = [rank[name] for rank in found]
        most = max(each, key=lambda row: sum(row["sent"].values()))
        degrees, wire = Degrees(*map(int, name.split()[0:3:2])), name.split()[-1]
        work = max(row["operations"] for row in each) * len(each) / alone
        bytes_of = (sum(most["sent"].values()), sum(most["formula"].values()), each[0]["memory"], each[0]["planned"])
        sent, formula, memory, planned = (f"{size / 1e6:,.3f}" for size in bytes_of)
        official = Step(tokens, degrees=degrees).unevenness
        cells = [f"{degrees.ulysses} × {degrees.ring}", wire, sent, formula, f"{work:.3f}", f"{official:.3f}"]
        cells += [", ".join(map(str, most["gathered"])), memory, planned]
        if timed:
            predicted = step_seconds(Step(here, MAX_TEXT_TOKENS, degrees, Wire(wire), config=config), CARDS[card]).total
            cells += [f"{each[0]['seconds']:.3f}", f"{predicted:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _latents(sampling: FullSampling) -> tuple[int, int, int]:
    _, _, *size = VAEConfig().latent_shape(sampling.num_frames, sampling.height, sampling.width)
    return size[0], size[1], size[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4, help="processes to start on a CPU")
    parser.add_argument("--heads", type=int, default=24, help="attention heads of the small model")
    parser.add_argument("--size", default="25x192x304", help="frames x height x width")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--card", choices=list(CARDS), default="h100-nvlink", help="whose seconds are predicted")
    args = parser.parse_args()
    frames, height, width = map(int, args.size.split("x"))
    latents, dtype = _latents(FullSampling(height=height, width=width, num_frames=frames)), getattr(torch, args.dtype)
    if args.device == "cpu":
        config, ranks, machine = small(args.heads), args.ranks, platform.processor() or platform.machine()
        found = on_gloo(config, latents, ranks, dtype)
    else:
        if "RANK" not in os.environ:
            parser.error("--device cuda needs torchrun: torchrun --nproc-per-node N benchmarks/parallel.py --device cuda")
        config = TransformerConfig()
        with process_group("cuda"):
            ranks, machine = dist.get_world_size(), torch.cuda.get_device_name()
            mine = all_rows(config, latents, all_degrees(ranks, config.num_heads), dtype, resolve_device("cuda"))
            found: list[Any] = [None] * ranks
            dist.all_gather_object(found, mine)
            if dist.get_rank() > 0:
                return
    model = f"{config.num_heads} heads of {config.head_dim}, {config.num_double_blocks} + {config.num_single_blocks} blocks"
    print(f"{ranks} ranks, {args.size}, {model}, {args.dtype}; torch {torch.__version__} on {machine}, {date.today()}\n")
    print(table(found, config, latents, args.card))


if __name__ == "__main__":
    main()
