"""Llama, the language model that reads the prompt: states, and no words. The parameters' names are Hugging Face's.

Letters: B sequences, N tokens, E features of a token, H heads, G heads of keys and values, D features of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hunyuan_video.config import check_types, require
from hunyuan_video.models.transformer import RMSNorm


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama; the defaults are those of the released text encoder, Llama-3-8B's."""

    vocab_size: int = 128320
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be 1 or more")
        heads, key_value_heads = self.num_attention_heads, self.num_key_value_heads
        require(heads % key_value_heads == 0, f"{heads} heads cannot share {key_value_heads} heads of keys and values alike")
        require(self.head_dim > 0 and self.head_dim % 2 == 0, f"head_dim is {self.head_dim}; it must be even, for positions turn pairs")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LlamaConfig:
        """Of a Hugging Face config.json, where what is left out is as transformers has it.

        Raises:
            ValueError: it is another kind of Llama, with other activations or scaled positions.
        """
        values = {name: value for name, value in values.items() if value is not None}
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        require(kind == "default", f"its positions are scaled ({kind}); HunyuanVideo's text encoder has plain ones")
        act = values.get("hidden_act", "silu")
        require(act == "silu", f"its activation is {act}; a Llama has silu")
        hidden_size, heads = values.get("hidden_size", 4096), values.get("num_attention_heads", 32)
        return cls(
            vocab_size=values.get("vocab_size", 32000),
            hidden_size=hidden_size,
            intermediate_size=values.get("intermediate_size", 11008),
            num_hidden_layers=values.get("num_hidden_layers", 32),
            num_attention_heads=heads,
            num_key_value_heads=values.get("num_key_value_heads", heads),
            head_dim=values.get("head_dim", hidden_size // heads),
            rms_norm_eps=values.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta", values.get("rope_theta", 10000.0)),
            attention_bias=values.get("attention_bias", False),
            mlp_bias=values.get("mlp_bias", False),
        )

    def to_json(self) -> dict[str, Any]:
        """As transformers has it."""
        positions = {"rope_type": "default", "rope_theta": self.rope_theta}
        return asdict(self) | {"model_type": "llama", "architectures": ["LlamaModel"], "hidden_act": "silu", "rope_parameters": positions}


Turns = tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]  # cosines and sines of a token's position


def frequencies(config: LlamaConfig, device: torch.device | None = None) -> Float[Tensor, "half_of_D"]:
    """Radians a token, of each pair of features."""
    return 1 / config.rope_theta ** (torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim)


def turns(config: LlamaConfig, num_tokens: int, like: Tensor) -> Turns:
    """For the positions from 0 on, by float32 whatever the model's dtype: bfloat16 tells no 257 from 256."""
    angles = torch.outer(torch.arange(num_tokens, device=like.device).float(), frequencies(config, like.device))
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like), angles.sin().to(like)


def rotated(x: Float[Tensor, "B heads N D"], by: Turns) -> Float[Tensor, "B heads N D"]:
    """Pairs are a feature of the first half and one of the second."""
    cos, sin = by
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.head_dim = config.head_dim
        inner, shared = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, shared, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, shared, bias=config.attention_bias)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=config.attention_bias)

    def forward(self, x: Float[Tensor, "B N E"], by: Turns) -> Float[Tensor, "B N E"]:
        q, k, v = (
            rearrange(project(x), "B N (heads D) -> B heads N D", D=self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, by), rotated(k, by)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return self.o_proj(rearrange(out, "B H N D -> B N (H D)"))


class MLP(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.self_attn, self.mlp = Attention(config), MLP(config)
        self.input_layernorm, self.post_attention_layernorm = (RMSNorm(config.hidden_size, config.rms_norm_eps) for _ in range(2))

    def forward(self, x: Float[Tensor, "B N E"], by: Turns) -> Float[Tensor, "B N E"]:
        x = x + self.self_attn(self.input_layernorm(x), by)
        return x + self.mlp(self.post_attention_layernorm(x))


def without_numbers(rows: int, width: int) -> nn.Embedding:
    """One whose numbers come from a file or are drawn later: PyTorch's own would draw them, and imports its compiler to do so for a model
    on the meta device, a second of compute."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


class Llama(nn.Module):
    """Token ids to the states of its last layer, normed; attention is causal."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = without_numbers(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm: nn.Module = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
        x = self.embed_tokens(ids)
        by = turns(self.config, ids.shape[1], x)
        for layer in self.layers:
            x = layer(x, by)
        return self.norm(x)
