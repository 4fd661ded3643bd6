"""What the stages of the pipeline do, on the meta device: nothing is computed there, but the same tensors are made and freed; every byte
and every operation is counted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.pipefusion import one_step_old
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.text import MAX_TEXT_TOKENS
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms import step_cache
from hunyuan_video.transforms.ahead import ahead
from hunyuan_video.transforms.tiling import TileSizes, decode_pieces
from hunyuan_video.video import to_levels

META = torch.device("meta")
FASTER_IN_8_BITS = 2  # times, where both factors are
IN_8_BITS = [getattr(torch, name) for name in ("_scaled_mm", "_scaled_mm_v2") if hasattr(torch, name)]  # what F.scaled_mm calls, too


class Work(NamedTuple):
    """Bytes at the fullest moment, weights not included; and operations, two for each multiplication."""

    most: int
    operations: float


def count(model: nn.Module, work: Callable[[], object]) -> Work:
    """What `work` takes beside the model's weights."""
    with torch.no_grad(), LiveBytes(model) as seen, Operations() as operations:
        work()
    return Work(seen.most, operations.count)


class Operations(TorchFunctionMode):
    """Counts them. Attention is a fused kernel here: on the meta device PyTorch itself would choose the one that keeps all scores."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            self.count += 4 * q.numel() * k.shape[-2]
            return q.new_empty(*q.shape[:-1], v.shape[-1])
        out = func(*args, **(kwargs or {}))
        if func in IN_8_BITS:
            self.count += 2 * out.numel() * args[0].shape[1] / FASTER_IN_8_BITS
        if func in (F.linear, torch.conv3d):
            self.count += 2 * out.numel() * args[1][0].numel()
        return out


def encode(llm: nn.Module, prompts: int, num_tokens: int) -> None:
    """CLIP is a hundredth of the language model, its tower for pictures a twentieth, before it."""
    llm(torch.empty(prompts, num_tokens, dtype=torch.long, device=META))


def denoise(
    model: HunyuanVideoTransformer, shape: Sequence[int], num_steps: int = 1, branch: int = 0, text_tokens: int = MAX_TEXT_TOKENS
) -> None:
    """One step of so many, and what is known of all before it."""
    config, dtype = model.config, model.img_in.proj.weight.dtype
    make = partial(torch.empty, device=META)
    latents, states, pooled = make(shape), make(1, text_tokens, config.text_dim, dtype=dtype), make(1, config.pooled_dim, dtype=dtype)
    beside = make(shape[0], config.in_channels - shape[1], *shape[2:])
    with ahead(model, [make(1)] * num_steps, (), lambda _: nullcontext()) as prepare:
        mask = torch.ones(1, text_tokens, dtype=torch.bool)  # not on the meta device: it is looked at
        condition = prepare(branch, states, mask, pooled, None if model.guidance_in is None else make(1))
        others = make(num_steps - 1, *condition.txt.shape, dtype=dtype)  # the text refined for noise levels that are no others here
        velocity = model(torch.cat([latents, beside], dim=1) if beside.numel() else latents, make(1), condition)
    del others
    latents + velocity  # pyright: ignore[reportUnusedExpression]


def count_denoising(
    model: HunyuanVideoTransformer, shape: Sequence[int], runtime: Runtime, sampling: FullSampling, text_tokens: int
) -> Work:
    """The memory of one step; its operations are for `cost.Step` to say, for not all are done here. Where there are to be patches, an exact
    step, in which more is alive, with all keys of all branches remembered."""
    if runtime.pipefusion_patches is None:
        with _few_blocks(model):
            done = count(model, lambda: denoise(model, shape, sampling.num_steps, text_tokens=text_tokens))
        return done._replace(most=done.most + _remembered(model, shape, runtime, sampling))
    calls = 2 * list(range(2 if sampling.cfg_scale > 1 else 1))  # only the second time all keys are there from the start

    def work() -> None:
        with one_step_old(model, patches=1, warmup_steps=1):
            for branch in calls:
                denoise(model, shape, sampling.num_steps, branch, text_tokens)

    return count(model, work)


@contextmanager
def _few_blocks(model: HunyuanVideoTransformer) -> Iterator[None]:
    """Inside, only the first block of each kind computes: all others take the same memory, which is seconds of counting. They still come
    and go."""
    passing = [*model.double_blocks[1:], *model.single_blocks[1:]]
    for block in passing:
        block.forward = lambda *inputs: inputs[0] if len(inputs) == 2 else inputs[:2]
    try:
        yield
    finally:
        for block in passing:
            del block.forward


def _remembered(model: HunyuanVideoTransformer, shape: Sequence[int], runtime: Runtime, sampling: FullSampling) -> int:
    """Bytes of a step cache that looks into the model; what the others keep is as little as latents."""
    if runtime.step_cache != "first-block":
        return 0
    tokens = math.prod(model.config.grid(tuple(shape)))
    ranks, branches = (runtime.ulysses_degree or 1) * (runtime.ring_degree or 1), 2 if sampling.cfg_scale > 1 else 1
    return step_cache.remembered_bytes(model.config, -(-tokens // ranks), model.img_in.proj.weight.itemsize, branches)


_decodings: dict[tuple[VAEConfig, torch.dtype, tuple[int, ...], TileSizes | None], Work] = {}
_tiles: dict[tuple[VAEConfig, torch.dtype, torch.Size], Work] = {}


def count_decoding(vae: CausalVAE, shape: tuple[int, ...], tiling: bool) -> Work:
    """Once in a process: whatever else is planned with, it is the same."""
    key = vae.config, next(vae.parameters()).dtype, shape, TileSizes.of(vae.config) if tiling else None
    if key not in _decodings:
        _decodings[key] = _decoding(vae, shape, tiling)
    return _decodings[key]


def _decoding(vae: CausalVAE, shape: tuple[int, ...], tiling: bool) -> Work:
    """The first tile, which is the largest, really runs, once in a process: of most videos it is the same. The others are stood for by a
    tensor as large as theirs would get."""
    config, decode = vae.config, vae.decode
    first: tuple[int, Work] | None = None
    operations = 0.0

    def stand_in(z: Tensor) -> Tensor:
        nonlocal first, operations
        tile = config, z.dtype, z.shape
        if first is None and tile not in _tiles:
            _tiles[tile] = count(vae, lambda: decode(z))
        first = first or (z.numel(), _tiles[tile])
        share = z.numel() / first[0]
        operations += share * first[1].operations
        (batch, _, time, height, width), side = z.shape, config.spatial_compression_ratio
        frames = config.time_compression_ratio * (time - 1) + 1
        pixels = z.new_empty(batch, config.out_channels, frames, side * height, side * width)
        z.new_empty(max(0, round(share * first[1].most) - pixels.nbytes), dtype=torch.uint8)
        return pixels

    def show(piece: Tensor) -> None:
        piece.isnan()
        to_levels(piece[0])

    def work() -> None:
        z = torch.empty(shape, dtype=next(vae.parameters()).dtype, device=META)
        deque(map(show, decode_pieces(vae, z) if tiling else map(stand_in, [z])), maxlen=0)

    vae.decode = stand_in  # pyright: ignore[reportAttributeAccessIssue]
    return Work(count(vae, work).most, operations)
