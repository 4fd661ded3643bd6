"""CLIP's two halves: one reads a text, the other sees a picture. The parameters' names are Hugging Face's.

Letters: B texts or pictures, N tokens, E features of a token, H heads, D features of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hunyuan_video.config import check_types, require
from hunyuan_video.models.llama import without_numbers

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float = 1e-5
    hidden_act: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        check_types(self)
        for name, value in vars(self).items():
            require(not isinstance(value, int) or value > 0, f"{name} is {value}; it must be 1 or more")
        heads = self.num_attention_heads
        require(self.hidden_size % heads == 0, f"{self.hidden_size} features cannot be shared by {heads} heads alike")


@dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(_Sizes):
    """Sizes of the half that reads; the defaults are those of the released CLIP-L."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    vocab_size: int = 49408
    max_position_embeddings: int = 77

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CLIPTextConfig:
        """Of a Hugging Face config.json, of this half or of both, where what is left out is as transformers has it."""
        usual = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
        return _from_json(cls, values.get("text_config") or values, usual)

    def to_json(self) -> dict[str, Any]:
        """As transformers has it."""
        return asdict(self) | {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]}


@dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(_Sizes):
    """Sizes of the half that sees; the defaults are those of the released LLaVA's, ViT-L/14 at 336 pixels."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 336
    patch_size: int = 14

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CLIPVisionConfig:
        usual = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        return _from_json(cls, values, usual | {"image_size": 224, "patch_size": 32})


def _from_json(kind: Any, values: Mapping[str, Any], usual: Mapping[str, int]) -> Any:
    known = {name: values[name] for name in kind.__dataclass_fields__ if values.get(name) is not None}
    return kind(**dict(usual) | known)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    def __init__(self, config: _Sizes, *, is_causal: bool):
        super().__init__()
        self.num_heads, self.is_causal = config.num_attention_heads, is_causal
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4))

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        q, k, v = (rearrange(project(x), "B N (H D) -> B H N D", H=self.num_heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        return self.out_proj(rearrange(out, "B H N D -> B N (H D)"))


class MLP(nn.Module):
    def __init__(self, config: _Sizes):
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, config: _Sizes, *, is_causal: bool):
        super().__init__()
        self.self_attn, self.mlp = Attention(config, is_causal=is_causal), MLP(config)
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(2))

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    def __init__(self, config: _Sizes, *, is_causal: bool):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, is_causal=is_causal) for _ in range(config.num_hidden_layers))

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        for layer in self.layers:
            x = layer(x)
        return x


class TextEmbeddings(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = without_numbers(config.vocab_size, config.hidden_size)
        self.position_embedding = without_numbers(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
        return self.token_embedding(ids) + self.position_embedding(torch.arange(ids.shape[1], device=ids.device))


class CLIPText(nn.Module):
    """Token ids to normed states."""

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.config = config
        self.embeddings, self.encoder = TextEmbeddings(config), Encoder(config, is_causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))


class VisionEmbeddings(nn.Module):
    """A class token and one for each patch."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(config.hidden_size))
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size, bias=False)
        self.position_embedding = without_numbers(config.num_patches + 1, config.hidden_size)

    def forward(self, pixels: Float[Tensor, "B 3 side side"]) -> Float[Tensor, "B N E"]:
        patches = rearrange(self.patch_embedding(pixels), "B E rows columns -> B (rows columns) E")
        tokens = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        return tokens + self.position_embedding(torch.arange(tokens.shape[1], device=tokens.device))


class CLIPVision(nn.Module):
    """Pixels, normalized, to the states of the last layer, the class token's first. No norm comes after them."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.config = config
        self.embeddings, self.encoder = VisionEmbeddings(config), Encoder(config, is_causal=False)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # whose name has always been spelled so

    def forward(self, pixels: Float[Tensor, "B 3 side side"]) -> Float[Tensor, "B N E"]:
        return self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
