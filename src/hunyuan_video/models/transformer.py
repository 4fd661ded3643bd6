"""The HunyuanVideo diffusion transformer: latents and text in, velocity out.

Dual-stream blocks give image and text tokens their own weights and one joint attention; single-stream blocks then run both as one
sequence (image first, text last). Parameter names are the official checkpoint's, so a state dict loads as it is, strictly.

Letters: B batch, C latent channels, T H W latent frames, height, width; N image tokens, L text tokens, S = N + L; D hidden size,
R rows of modulation (1, or 2 where some frames are given clean).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hunyuan_video.models.attention import AttentionFn, sdpa
from hunyuan_video.models.rope import Rope, apply_rope, rope_table
from hunyuan_video.models.timestep import TimestepEmbedder


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the transformer. The defaults are the released 13B model, HYVideo-T/2-cfgdistill."""

    in_channels: int = 16
    out_channels: int = 16
    hidden_size: int = 3072
    num_heads: int = 24
    mlp_ratio: float = 4.0
    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_double_blocks: int = 20
    num_single_blocks: int = 40
    num_refiner_blocks: int = 2
    rope_dims: tuple[int, int, int] = (16, 56, 56)
    rope_theta: float = 256.0
    text_dim: int = 4096
    pooled_dim: int = 768
    guidance_embed: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}.")
        if sum(self.rope_dims) != self.head_dim or any(dim % 2 for dim in self.rope_dims):
            raise ValueError(f"rope_dims {self.rope_dims} must be even numbers that add up to the head dimension, {self.head_dim}.")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Patches along time, height and width of latents [B, C, T, H, W]."""
        frames, height, width = (size // patch for size, patch in zip(shape[2:], self.patch_size, strict=True))
        return frames, height, width


class TextProjection(nn.Module):
    """Two linears around a SiLU; the names of the two differ between the places it stands in."""

    def __init__(self, in_dim: int, hidden_size: int, names: tuple[str, str]):
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Linear(in_dim, hidden_size))
        self.add_module(names[1], nn.Linear(hidden_size, hidden_size))

    def forward(self, x: Float[Tensor, "B in"]) -> Float[Tensor, "B D"]:
        first, second = (self.get_submodule(name) for name in self.names)
        return second(F.silu(first(x)))


class PatchEmbed(nn.Module):
    """Latents to tokens: one linear map per 1x2x2 patch, row-major over (T, H/2, W/2)."""

    def __init__(self, patch_size: tuple[int, int, int], in_channels: int, hidden_size: int):
        super().__init__()
        self.proj = nn.Conv3d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N D"]:
        return self.proj(x).flatten(2).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, hidden_size: int, mlp_dim: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, mlp_dim)
        self.fc2 = nn.Linear(mlp_dim, hidden_size)
        self.activation = activation

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        return self.fc2(self.activation(self.fc1(x)))


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class RMSNorm(nn.Module):
    """Normalizes in float32, casts back, and only then applies the weight, as the released weights were trained."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).type_as(x) * self.weight


Stretches = tuple[tuple[int, int], ...]  # start and stop of each, in order and apart


def stretches(marks: Sequence[bool]) -> Stretches:
    """Where marks are set."""
    edges = [place for place, (before, after) in enumerate(pairwise([False, *marks, False])) if before != after]
    return tuple(zip(edges[::2], edges[1::2], strict=True))


class Context(NamedTuple):
    """What every block sees besides its tokens."""

    vec: Float[Tensor, "B R D"]  # SiLU of the conditioning vector; R = 2 adds a first row for frames that are given clean
    clean: Stretches  # of the image tokens that this first row modulates
    rope: Rope
    mask: Bool[Tensor, "B 1 S"] | None  # True = real token; None where all are
    attend: Callable[..., Any] = operator.call  # (kernel, q, k, v, mask): lets a block's kernel see all tokens, wherever they are
    branch: int = 0  # of guidance, for what remembers something of each

    def of_part(self, start: int, num_tokens: int) -> Context:
        """For `num_tokens` of the image tokens. The mask is still of all tokens."""
        clean = [(max(first - start, 0), min(stop - start, num_tokens)) for first, stop in self.clean]
        return self._replace(
            clean=tuple((first, stop) for first, stop in clean if first < stop),
            rope=Rope(*(table[start : start + num_tokens] for table in self.rope)),
        )

    def rows(self, num_tokens: int) -> Iterator[tuple[int, int, int]]:
        """A sequence that starts with the image tokens, by what modulates it: start, stop and row of `vec` of each stretch."""
        done = 0
        for start, stop in self.clean:
            if done < start:
                yield done, start, -1
            yield start, stop, 0
            done = stop
        if done < num_tokens:
            yield done, num_tokens, -1


class Modulation(nn.Module):
    """The conditioning vector to `num_chunks` shifts, scales and gates that broadcast over tokens."""

    def __init__(self, hidden_size: int, num_chunks: int):
        super().__init__()
        self.num_chunks = num_chunks
        self.linear = nn.Linear(hidden_size, num_chunks * hidden_size)

    def forward(self, ctx: Context) -> tuple[Float[Tensor, "B _ D"], ...]:
        """For text tokens, and for image tokens where no frame is clean: one row for all tokens."""
        return self.linear(ctx.vec[:, -1:]).chunk(self.num_chunks, dim=-1)

    def per_token(self, ctx: Context, num_tokens: int) -> tuple[Float[Tensor, "B _ D"], ...]:
        """For a sequence that starts with the image tokens: clean ones get a row of their own."""
        if not ctx.clean:
            return self(ctx)
        made = self.linear(ctx.vec)
        rows = [made[:, row, None].expand(-1, stop - start, -1) for start, stop, row in ctx.rows(num_tokens)]
        return torch.cat(rows, dim=1).chunk(self.num_chunks, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then x * (1 + scale) + shift."""
    return torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=1e-6), 1 + scale)


class DoubleStreamBlock(nn.Module):
    """Image and text with separate weights and one joint attention."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        dim, mlp_dim = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        self.num_heads = config.num_heads
        self.attention: AttentionFn = sdpa

        self.img_mod = Modulation(dim, 6)
        self.img_attn_qkv = nn.Linear(dim, 3 * dim)
        self.img_attn_q_norm = RMSNorm(config.head_dim)
        self.img_attn_k_norm = RMSNorm(config.head_dim)
        self.img_attn_proj = nn.Linear(dim, dim)
        self.img_mlp = MLP(dim, mlp_dim, gelu_tanh)

        self.txt_mod = Modulation(dim, 6)
        self.txt_attn_qkv = nn.Linear(dim, 3 * dim)
        self.txt_attn_q_norm = RMSNorm(config.head_dim)
        self.txt_attn_k_norm = RMSNorm(config.head_dim)
        self.txt_attn_proj = nn.Linear(dim, dim)
        self.txt_mlp = MLP(dim, mlp_dim, gelu_tanh)

    def forward(
        self, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B L D"]]:
        img_shift1, img_scale1, img_gate1, img_shift2, img_scale2, img_gate2 = self.img_mod.per_token(ctx, img.shape[1])
        txt_shift1, txt_scale1, txt_gate1, txt_shift2, txt_scale2, txt_gate2 = self.txt_mod(ctx)

        img_q, img_k, img_v = split_heads(self.img_attn_qkv(modulate(img, img_shift1, img_scale1)), self.num_heads)
        txt_q, txt_k, txt_v = split_heads(self.txt_attn_qkv(modulate(txt, txt_shift1, txt_scale1)), self.num_heads)
        img_q = apply_rope(self.img_attn_q_norm(img_q), ctx.rope)
        img_k = apply_rope(self.img_attn_k_norm(img_k), ctx.rope)
        txt_q, txt_k = self.txt_attn_q_norm(txt_q), self.txt_attn_k_norm(txt_k)

        q, k, v = torch.cat([img_q, txt_q], 1), torch.cat([img_k, txt_k], 1), torch.cat([img_v, txt_v], 1)
        img_attn, txt_attn = ctx.attend(self.attention, q, k, v, ctx.mask).flatten(2).split([img.shape[1], txt.shape[1]], dim=1)

        img = torch.addcmul(img, img_gate1, self.img_attn_proj(img_attn))
        img = torch.addcmul(img, img_gate2, self.img_mlp(modulate(img, img_shift2, img_scale2)))
        txt = torch.addcmul(txt, txt_gate1, self.txt_attn_proj(txt_attn))
        txt = torch.addcmul(txt, txt_gate2, self.txt_mlp(modulate(txt, txt_shift2, txt_scale2)))
        return img, txt


class SingleStreamBlock(nn.Module):
    """Image and text as one sequence; attention and MLP side by side, in one linear before and one after."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        dim, mlp_dim = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        self.num_heads = config.num_heads
        self.widths = (3 * dim, mlp_dim)
        self.attention: AttentionFn = sdpa
        self.linear1 = nn.Linear(dim, 3 * dim + mlp_dim)
        self.linear2 = nn.Linear(dim + mlp_dim, dim)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)
        self.modulation = Modulation(dim, 3)

    def forward(self, x: Float[Tensor, "B S D"], ctx: Context) -> Float[Tensor, "B S D"]:
        """`ctx.rope` covers the whole sequence here: see `Rope.with_text`."""
        shift, scale, gate = self.modulation.per_token(ctx, x.shape[1])
        qkv, mlp = self.linear1(modulate(x, shift, scale)).split(self.widths, dim=-1)
        q, k, v = split_heads(qkv, self.num_heads)
        q, k = apply_rope(self.q_norm(q), ctx.rope), apply_rope(self.k_norm(k), ctx.rope)
        attn = ctx.attend(self.attention, q, k, v, ctx.mask).flatten(2)
        return torch.addcmul(x, gate, self.linear2(torch.cat([attn, gelu_tanh(mlp)], dim=-1)))


def split_heads(qkv: Float[Tensor, "B S three_D"], num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = rearrange(qkv, "B S (three heads dim) -> three B S heads dim", three=3, heads=num_heads).unbind(0)
    return q, k, v


class RefinerBlock(nn.Module):
    """A plain pre-norm transformer block over text; the conditioning only gates it."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.num_heads = num_heads
        self.attention: AttentionFn = sdpa
        self.norm1 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.self_attn_qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.self_attn_proj = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.mlp = MLP(hidden_size, int(hidden_size * mlp_ratio), F.silu)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Float[Tensor, "B L D"], c: Float[Tensor, "B D"], mask: Bool[Tensor, "B L L"] | None) -> Float[Tensor, "B L D"]:
        attn_gate, mlp_gate = self.adaLN_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        q, k, v = split_heads(self.self_attn_qkv(self.norm1(x)), self.num_heads)
        x = torch.addcmul(x, attn_gate, self.self_attn_proj(self.attention(q, k, v, mask).flatten(2)))
        return torch.addcmul(x, mlp_gate, self.mlp(self.norm2(x)))


class RefinerBlocks(nn.Module):
    """Only a level of the official names: `txt_in.individual_token_refiner.blocks`."""

    def __init__(self, blocks: list[RefinerBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class TokenRefiner(nn.Module):
    """LLM states to text tokens. `embed` is what does not depend on t, and is done once per prompt."""

    def __init__(self, text_dim: int, hidden_size: int, num_heads: int, num_blocks: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.input_embedder = nn.Linear(text_dim, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.c_embedder = TextProjection(text_dim, hidden_size, ("linear_1", "linear_2"))
        self.individual_token_refiner = RefinerBlocks([RefinerBlock(hidden_size, num_heads, mlp_ratio) for _ in range(num_blocks)])

    def embed(
        self, states: Float[Tensor, "B L text_dim"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D"]]:
        if mask is None:
            mean = states.float().mean(dim=1)
        else:
            mean = (states.float() * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.input_embedder(states), self.c_embedder(mean.type_as(states))

    def forward(
        self, x: Float[Tensor, "B L D"], context: Float[Tensor, "B D"], t: Float[Tensor, " B"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B L D"]:
        c = self.t_embedder(t, x.dtype) + context
        pairs = None
        if mask is not None:
            pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
            pairs[:, :, 0] = True  # padding queries attend to the first token: a row without any key would be NaN
        for block in self.individual_token_refiner.blocks:
            x = block(x, c, pairs)
        return x


class FinalLayer(nn.Module):
    """Tokens to the values of their patches."""

    def __init__(self, hidden_size: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_dim)
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(hidden_size, 2 * hidden_size))  # only a level of the official names

    def forward(self, img: Float[Tensor, "B N D"], ctx: Context) -> Float[Tensor, "B N out"]:
        shift, scale = self.adaLN_modulation(ctx.vec[:, -1:]).chunk(2, dim=-1)
        return self.linear(modulate(img, shift, scale))


@dataclass(frozen=True)
class Condition:
    """Everything a prompt and a guidance scale mean to the transformer: computed once, used at every step."""

    txt: Float[Tensor, "B L D"]
    context: Float[Tensor, "B D"]
    pooled: Float[Tensor, "B D"]
    guidance: Float[Tensor, "B D"] | None
    mask: Bool[Tensor, "B L"] | None  # None where every token is real
    branch: int = 0  # of guidance: 1 is the negative prompt's


class HunyuanVideoTransformer(nn.Module):
    """Velocity (noise minus data) of noisy latents, given text.

        condition = model.condition(states, mask, pooled, guidance)     # once per video
        velocity = model(x, t, condition)                               # every step

    `trunk` is a plain function of the model, embedded tokens in and out, so that what concerns the whole stack can wrap it; `predict`
    is the trunk and what follows on each token alone. They are not bound methods: those would be reference cycles, which keep 26 GB
    alive after `del model`.
    """

    def __init__(self, config: TransformerConfig = TransformerConfig()):
        super().__init__()
        self.config = config
        dim = config.hidden_size
        self.img_in = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.txt_in = TokenRefiner(config.text_dim, dim, config.num_heads, config.num_refiner_blocks, config.mlp_ratio)
        self.time_in = TimestepEmbedder(dim)
        self.vector_in = TextProjection(config.pooled_dim, dim, ("in_layer", "out_layer"))
        self.guidance_in = TimestepEmbedder(dim) if config.guidance_embed else None
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(config) for _ in range(config.num_double_blocks))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(config) for _ in range(config.num_single_blocks))
        self.final_layer = FinalLayer(dim, config.out_channels * math.prod(config.patch_size))
        self.trunk: TrunkFn = trunk
        self.predict: TrunkFn = predict

    @property
    def blocks(self) -> list[nn.Module]:
        """In the order in which they work."""
        return [*self.double_blocks, *self.single_blocks]

    def rope(self, shape: tuple[int, ...], device: torch.device) -> Rope:
        """Position tables for latents of a shape [B, C, T, H, W]."""
        return rope_table(self.config.grid(shape), self.config.rope_dims, self.config.rope_theta, device)

    def condition(
        self,
        states: Float[Tensor, "B L text_dim"],
        mask: Bool[Tensor, "B L"],
        pooled: Float[Tensor, "B pooled_dim"],
        guidance: Float[Tensor, " B"] | None = None,
    ) -> Condition:
        """Embed text states (real tokens before padding, `mask` True = real, best on the CPU), the pooled vector and `guidance` (the scale
        times 1000).

        Padding is trimmed, which is exact; a mask is kept only if the prompts of the batch differ in length.

        Raises:
            ValueError: guidance is missing on a model that embeds it, or given to one that does not; or a prompt has no token.
        """
        if (guidance is None) != (self.guidance_in is None):
            has, given = ("no", "one") if self.guidance_in is None else ("a", "none")
            raise ValueError(f"This model has {has} guidance embedding, but {given} was given; check the setting against the weights.")
        lengths = mask.sum(dim=1)
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest == 0:
            raise ValueError("A prompt has no text token at all; every prompt needs at least one.")
        states, trimmed = states[:, :longest], None if shortest == longest else mask[:, :longest].to(states.device)
        txt, context = self.txt_in.embed(states, trimmed)
        return Condition(
            txt=txt,
            context=context,
            pooled=self.vector_in(pooled),
            guidance=None if guidance is None or self.guidance_in is None else self.guidance_in(guidance, states.dtype),
            mask=trimmed,
        )

    def conditioning(self, t: Float[Tensor, " B"], condition: Condition, clean_frames: Collection[int]) -> Float[Tensor, "B R D"]:
        """The conditioning vector as `Context` has it."""
        pooled, guidance = condition.pooled, condition.guidance
        vec = self.time_in(t, pooled.dtype) + pooled
        rows = [vec if guidance is None else vec + guidance]
        if clean_frames:
            rows.insert(0, self.time_in(torch.zeros_like(t), pooled.dtype) + pooled)
        return F.silu(torch.stack(rows, dim=1))  # once here instead of once in each of 60 blocks

    def forward(
        self,
        x: Float[Tensor, "B C T H W"],
        t: Float[Tensor, " B"],
        condition: Condition,
        clean_frames: Collection[int] = (),
        rope: Rope | None = None,
    ) -> Float[Tensor, "B out T H W"]:
        """The velocity at `x`, whose noise level is `t` in 0…1000 (float32, fractions allowed).

        The latent frames `clean_frames` hold data without noise (image to video, "token replace", is the first one, 0): their tokens
        are modulated as at t = 0 and without guidance. `rope` is `self.rope(x.shape, x.device)`, for who has it from an earlier step.
        """
        pt, ph, pw = self.config.patch_size
        grid = self.config.grid(x.shape)
        frame, clean = grid[1] * grid[2], stretches([pt * number in clean_frames for number in range(grid[0])])
        img = self.img_in(x.to(self.img_in.proj.weight.dtype))
        txt = self.txt_in(condition.txt, condition.context, t, condition.mask)

        mask = condition.mask
        if mask is not None:
            mask = F.pad(mask, (img.shape[1], 0), value=True).unsqueeze(1)
        ctx = Context(
            vec=self.conditioning(t, condition, clean_frames),
            clean=tuple((start * frame, stop * frame) for start, stop in clean),
            rope=rope or self.rope(x.shape, img.device),
            mask=mask,
            branch=condition.branch,
        )
        out = self.predict(self, img, txt, ctx)
        return rearrange(out, "B (T H W) (c pt ph pw) -> B c (T pt) (H ph) (W pw)", T=grid[0], H=grid[1], W=grid[2], pt=pt, ph=ph, pw=pw)


TrunkFn = Callable[[HunyuanVideoTransformer, Tensor, Tensor, Context], Tensor]


def stack(
    model: HunyuanVideoTransformer,
    img: Float[Tensor, "B N D"],
    txt: Float[Tensor, "B L D"],
    ctx: Context,
    call: Callable[..., Any] = operator.call,
) -> Float[Tensor, "B S D"]:
    """All blocks: embedded image and text tokens in, and both out, as one sequence. A block is run by `call(block, *inputs)`."""
    for block in model.double_blocks:
        img, txt = call(block, img, txt, ctx)
    x = torch.cat([img, txt], dim=1)
    ctx = ctx._replace(rope=ctx.rope.with_text(txt.shape[1]))
    for block in model.single_blocks:
        x = call(block, x, ctx)
    return x


def trunk(
    model: HunyuanVideoTransformer,
    img: Float[Tensor, "B N D"],
    txt: Float[Tensor, "B L D"],
    ctx: Context,
    call: Callable[..., Any] = operator.call,
) -> Float[Tensor, "B N D"]:
    """As `stack`, and of what comes out the image tokens."""
    return stack(model, img, txt, ctx, call)[:, : img.shape[1]]


def predict(
    model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
) -> Float[Tensor, "B N out"]:
    """Embedded image and text tokens in, the velocity of each image token's patch out."""
    return model.final_layer(model.trunk(model, img, txt, ctx), ctx)
