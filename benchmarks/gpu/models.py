"""Random models of the released sizes, made where they compute and in the dtype they compute in; and what goes into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from measure import randomize
from torch import Tensor, nn

from gpu.part import Part
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms.chunk import in_chunks

TEXT_TOKENS = 256
SIZES = {"129x720x1280": (33, 90, 160), "129x544x960": (33, 68, 120)}  # latent frames, height and width
TINY_SIZES = {"5x32x48": (2, 4, 6)}
TINY = TransformerConfig(
    hidden_size=64, num_heads=2, num_double_blocks=2, num_single_blocks=2, rope_dims=(4, 14, 14), text_dim=32, pooled_dim=16
)
TINY_VAE = VAEConfig(
    block_out_channels=(4, 4, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2, sample_size=32, sample_tsize=16
)
Call = Callable[[], Any]


def config_of(part: Part, blocks: int | None = None) -> TransformerConfig:
    """The 13B, or with so many blocks of each kind."""
    config = TINY if part.rehearse else TransformerConfig()
    return config if blocks is None else replace(config, num_double_blocks=blocks, num_single_blocks=blocks)


def random_transformer(config: TransformerConfig, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> HunyuanVideoTransformer:
    with torch.device("meta"):
        model = HunyuanVideoTransformer(config).to(dtype)
    return randomize(model.to_empty(device=device), std=0.02)


def random_vae(config: VAEConfig, device: torch.device, dtype: torch.dtype) -> CausalVAE:
    """In chunks, as every VAE that is loaded works."""
    with torch.device("meta"):
        vae = CausalVAE(config).to(dtype)
    vae = randomize(vae.to_empty(device=device), std=0.02)
    in_chunks(vae)
    return vae


class Inputs:
    """What both implementations are given: latents [1, C, T, H, W], text of which every token is real, and t in the middle of sampling."""

    def __init__(self, config: TransformerConfig, grid: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator(device).manual_seed(1)
        draw = partial(torch.randn, generator=generator, device=device, dtype=dtype)
        self.x, self.states = draw(1, config.in_channels, *grid), draw(1, TEXT_TOKENS, config.text_dim)
        self.mask = torch.ones(1, TEXT_TOKENS, dtype=torch.bool, device=device)
        self.pooled = draw(1, config.pooled_dim)
        self.t = torch.full((1,), 700.0, device=device)
        self.guidance = torch.full((1,), 6000.0, device=device, dtype=dtype)

    def ours(self, model: HunyuanVideoTransformer) -> Call:
        condition = model.condition(self.states, self.mask, self.pooled, self.guidance)
        return lambda: model(self.x, self.t, condition)

    def theirs(self, model: nn.Module) -> Call:
        given = (self.x, self.t, self.states, self.mask.to(self.x.dtype), self.pooled, self.guidance)
        return lambda: model(*given, return_dict=False)[0]


OURS, THEIRS = ("double_blocks", "single_blocks"), ("transformer_blocks", "single_transformer_blocks")


@contextmanager
def caught_blocks(model: nn.Module, names: tuple[str, str]) -> Iterator[dict[str, partial[Any]]]:
    """Inside, the first dual and the first single block do nothing, but once the model has run the dictionary holds each of them as a call
    with what it was given. So neither a block nor its arguments, which differ between implementations, need be known here."""
    calls: dict[str, partial[Any]] = {}

    def stand_in(kind: str, forward: Callable[..., Any]) -> Callable[..., object]:
        def remember(x: Tensor, *others: Any) -> object:
            calls[kind] = partial(forward, x, *others)
            return (x, others[0]) if isinstance(others[0], Tensor) else x  # text that comes apart leaves apart

        return remember

    blocks = {kind: next(model.get_submodule(name).children()) for kind, name in zip(("dual", "single"), names, strict=True)}
    for kind, block in blocks.items():
        block.forward = stand_in(kind, block.forward)
    try:
        yield calls
    finally:
        for block in blocks.values():
            del block.forward


def image_tokens(out: Any, number: int) -> Tensor:
    """Of what a block gives."""
    return (out[0] if isinstance(out, tuple) else out)[:, :number]
