"""Which attention kernel a model has: the one that was asked for, or the fastest for a length, measured where it runs.

Which that is depends on the processor as much as on the length. One with matrix units of its own for bfloat16 may be fastest with `sdpa`
below 1,000 tokens, with `chunked` above, and with `sdpa` again above 3,000; another is always faster with `chunked`; on one make of CPU a
native path is six times slower than on another.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from hunyuan_video.kernels import kept, table
from hunyuan_video.models.attention import KINDS, AttentionFn, sdpa

log = logging.getLogger(__name__)

CHOSEN = ("auto", "native")  # for each video: the fastest of all candidates, or of the native ones
TIE = 0.9  # of its time: what must be beaten by more than the noise of a machine
# A kernel is tried on a share of the work that is in proportion: each query's work is the same, and so is each head's. `sdpa` gives blocks
# of 256 queries of a head to a thread, and smaller ones where there are fewer than 768 queries; a GPU is full with eight heads.
QUERIES = {"cpu": 1024, "cuda": 2**14}
KEYS = {"cpu": 2**14, "cuda": 2**20}  # on a CPU no cache holds the scores beyond, and more keys only take longer
GPU_HEADS = 8
ROUNDS = 12  # at most; the first one only warms up
SECONDS = 0.25  # after which no other round begins, if there were three
BEHIND = 1.5  # times the fastest so far
AGREE = 0.03  # a kernel whose output is farther from that of `sdpa`, as a share of its norm, is broken here

_fastest: dict[tuple[object, ...], str] = {}
_said: set[str] = set()


def use_attention(model: nn.Module, kernel: AttentionFn) -> None:
    """Give every block of a model another attention kernel."""
    for block in _holders(model):
        block.attention = kernel  # pyright: ignore[reportArgumentType] (a function)


def attention_of(model: nn.Module) -> set[AttentionFn]:
    """The kernels that the blocks of a model have."""
    return {block.attention for block in _holders(model)}  # pyright: ignore[reportReturnType]


def _holders(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "attention" in vars(module)]  # a function; a module of that name would not be there


def for_training(device: torch.device) -> Literal["matmul", "sdpa"]:
    """The name of the kernel that trains: on a CPU the one that is faster in the backward pass."""
    return "matmul" if device.type == "cpu" else "sdpa"


def check_attention(
    name: str, device: torch.device, *, training: bool, dtype: torch.dtype | None = None, head_dim: int | None = None
) -> None:
    """Raises a ValueError for a kernel that cannot work: not on this device, not going backward, not in this dtype, or not installed."""
    if name == "auto":
        return
    names = [each for each in table.KERNELS if each.startswith("native-")] if name == "native" else [name]
    reasons = [why_not(each, device, dtype, head_dim, training=training) for each in names]
    if all(reasons):
        raise ValueError(f"attention is {name!r}, {reasons[0]}; use sdpa, or auto.")


def why_not(
    name: str, device: torch.device, dtype: torch.dtype | None = None, head_dim: int | None = None, *, training: bool = False
) -> str | None:
    """As `table.why_not`, also where a kernel is not installed, or is not for this very processor."""
    if reason := table.why_not(name, device, dtype, head_dim, training=training):
        return reason
    try:
        table.load(name)
    except (ImportError, RuntimeError) as error:
        return f"but {str(error).removesuffix('.')}"
    return None


def planned_as(name: str) -> str:
    """The kernel that stands for another where work is only counted: fused ones need what `sdpa` does, and may not be installed there."""
    return name if name in KINDS or name == "auto" else "sdpa"


def may_choose(model: nn.Module) -> bool:
    """Whether a model has kernels of ours, and none that somebody else has put there."""
    return attention_of(model) <= {sdpa, *KINDS.values(), *table.loaded()}


@torch.no_grad()
def fastest(heads: int, head_dim: int, num_tokens: int, dtype: torch.dtype, device: torch.device, among: str = "auto") -> str:
    """The name of the fastest kernel for one sequence of `num_tokens`: of all candidates, or of the "native" ones.

    It is measured once on a machine for all lengths near the same half power of two, in tens of milliseconds; in a second where steps take
    hours. Native kernels are compiled before, once, in seconds.

    Raises:
        ValueError: no native kernel works here, and one was asked for.
    """
    names = [
        name
        for name, kernel in table.KERNELS.items()
        if kernel.is_candidate and (among == "auto" or name.startswith("native-"))
        if table.why_not(name, device, dtype, head_dim, training=False) is None
    ]
    if device.type not in QUERIES or names == ["sdpa"]:
        return "sdpa"
    threads, half_powers = torch.get_num_threads(), round(2 * math.log2(num_tokens))
    key = (heads, head_dim, half_powers, dtype, device, threads, among)
    if key not in _fastest:
        question: kept.Question = {
            **{"machine": kept.machine(device), "torch": torch.__version__, "threads": threads, "dtype": str(dtype)},
            **{"heads": heads, "head_dim": head_dim, "half_powers_of_two_tokens": half_powers},
            "kernels": [f"{name} {table.KERNELS[name].version()}" for name in names],
        }
        seconds = kept.recall(question)
        if not seconds or not seconds.keys() <= {*names} or _loaded(_best(seconds)) is None:
            seconds = _measured(names, heads, head_dim, num_tokens, dtype, device)
            kept.keep(question, seconds)
        _fastest[key] = _best(seconds)
        times = ", ".join(f"{name} {1000 * time:.2f} ms" for name, time in seconds.items())
        log.info("Attention at %d tokens in %s: %s (%s).", num_tokens, str(dtype).removeprefix("torch."), _fastest[key], times)
    return _fastest[key]


def _best(seconds: Mapping[str, float]) -> str:
    first, best = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < TIE * seconds[first] else first


def _measured(names: list[str], heads: int, head_dim: int, num_tokens: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    of_blocks = torch.get_num_threads() * 256 // QUERIES["cpu"]  # heads that give every thread a block
    busy = min(heads, max(1, of_blocks) if device.type == "cpu" else GPU_HEADS)
    generator = torch.Generator(device).manual_seed(0)
    q = torch.randn(1, min(num_tokens, QUERIES[device.type]), busy, head_dim, generator=generator, device=device).to(dtype)
    k, v = torch.randn(2, 1, min(num_tokens, KEYS[device.type]), busy, head_dim, generator=generator, device=device).to(dtype)
    kernels = {name: kernel for name in names if (kernel := _working(name, q, k, v)) is not None}
    if not kernels:
        raise ValueError("No native attention kernel works here; use --attention sdpa, or auto.")
    return measure(kernels, q, k, v)


def _loaded(name: str) -> AttentionFn | None:
    try:
        return table.load(name)
    except (ImportError, RuntimeError) as error:
        _say(f"Without {name} attention: {error}" if isinstance(error, ImportError) else f"Without native attention: {error}")
        return None


def _working(name: str, q: Tensor, k: Tensor, v: Tensor) -> AttentionFn | None:
    """A kernel, if it can be loaded and computes what it should."""
    if (kernel := _loaded(name)) is None:
        return None
    try:
        out, expected = kernel(q, k, v, None).float(), sdpa(q, k, v, None).float()
    except Exception as error:  # other people's packages: what they raise on a GPU that they do not know is their own
        _say(f"Without {name} attention, which fails here: {type(error).__name__}: {error}")
        return None
    if (out - expected).norm() <= AGREE * expected.norm():
        return kernel
    _say(f"Without {name} attention, which computes something else than sdpa here.")
    return None


def _say(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        log.info("%s", sentence)


def measure(kernels: Mapping[str, AttentionFn], q: Tensor, k: Tensor, v: Tensor) -> dict[str, float]:
    """The least seconds of each kernel: whatever disturbs a machine only adds to them. They take turns, so that this is unfair to all
    alike; who is far behind is left out of the next rounds."""
    taken = dict.fromkeys(kernels, math.inf)
    end = _now(q.device) + SECONDS
    for number in range(ROUNDS):
        in_front = BEHIND * min(taken.values())
        for name in [name for name, least in taken.items() if least <= in_front]:
            start = _now(q.device)
            kernels[name](q, k, v, None)
            seconds = _now(q.device) - start
            if number > 0:  # before, caches are filled and memory is taken
                taken[name] = min(taken[name], seconds)
        if number > 2 and _now(q.device) > end:
            break
    return taken


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
