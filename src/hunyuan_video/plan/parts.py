"""A model's parts as weights on disk have them, made on the meta device as loading makes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hunyuan_video import progressive, windows
from hunyuan_video.assembly import Models, assemble, dtype_of
from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint import clip_config, fitting_sizes, llm_config, read_llm, read_vae, stays_in_file
from hunyuan_video.checkpoint.seeing import llava_config
from hunyuan_video.checkpoint.stored import open_transformer
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.cost import Step
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import CPU, Degrees, SequenceGroups, World
from hunyuan_video.kernels.choice import planned_as
from hunyuan_video.models.clip import CLIPText, CLIPTextConfig
from hunyuan_video.models.llama import LlamaConfig
from hunyuan_video.models.text import MAX_TEXT_TOKENS, PREFIX_TOKENS, without_skipped_layers
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.models.vision import PREFIX_TOKENS as SEEING_PREFIX_TOKENS
from hunyuan_video.models.vision import LlavaConfig, VisionTower
from hunyuan_video.plan.counting import META
from hunyuan_video.sampling import sigmas_of
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.as_stored import leave_as_stored
from hunyuan_video.transforms.lora import Lora, LoraLinear, Strength
from hunyuan_video.transforms.offload import tensors_of
from hunyuan_video.transforms.sparse import mean_density
from hunyuan_video.weights import Weights, is_large

CUDA = torch.device("cuda")
Loras = Sequence[tuple[Lora, Strength]]


@dataclass(frozen=True)
class Parts:
    """The sizes of a model's parts, and whether its transformer's weights come in 8 bits. The defaults are the released 13B."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    llm: LlamaConfig = field(default_factory=LlamaConfig)
    clip: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    in_8_bits: bool = False
    large: tuple[bool, bool, bool] = (True, True, False)
    """whether the text encoders, the transformer and the VAE are stored in so much that a CPU which can computes them in bfloat16"""
    in_files: tuple[bool, bool, bool] = (True, True, False)
    """and uses them where they lie"""
    stored: tuple[torch.dtype, torch.dtype] = (torch.bfloat16, torch.bfloat16)
    """what most weights of the language model and of the transformer are stored in"""
    llava: LlavaConfig | None = None
    """of a language model that sees the picture"""

    @property
    def read_tokens(self) -> int:
        """What the language model reads of the longest prompt."""
        before = PREFIX_TOKENS["video"] if self.llava is None else SEEING_PREFIX_TOKENS - 1 + self.llava.vision.num_patches
        return before + MAX_TEXT_TOKENS

    @property
    def text_tokens(self) -> int:
        """What the transformer is given of it."""
        return MAX_TEXT_TOKENS if self.llava is None else self.llava.text_tokens(how_told(self.transformer))

    @classmethod
    def of(cls, found: Weights) -> Parts:
        """Those of weights on disk, in any layout; nothing is loaded."""
        stored = open_transformer(found.transformer, found.load_key)
        text, transformer, vae = (is_large(part) for part in (found.text_encoder, found.transformer, found.vae))
        largest_of_text, largest = (
            max(state.values(), key=lambda tensor: tensor.nbytes) for state in (read_llm(found.text_encoder)[1], stored.state)
        )
        return cls(
            fitting_sizes(found),
            read_vae(found.vae)[0],
            llm_config(found.text_encoder),
            clip_config(found.text_encoder_2),
            bool(stored.scales),
            (text, transformer, vae),
            (stays_in_file(found.text_encoder, CPU), stays_in_file(found.transformer, CPU), False),
            (largest_of_text.dtype, largest.dtype),
            llava_config(found.text_encoder) if found.sees else None,
        )


def build(
    parts: Parts,
    runtime: Runtime,
    device: torch.device,
    loras: Loras = (),
    world: World = World(META),  # noqa: B008 (frozen)
) -> tuple[nn.ModuleDict, HunyuanVideoTransformer, CausalVAE, list[Tensor]]:
    """As `HunyuanVideo.load` makes them for a device: text encoders, transformer, VAE, and the tensors that come and go by themselves."""
    of_text, of_transformer, of_vae = (
        dtype_of(part, runtime, device, large=large) for part, large in zip(("text", "transformer", "vae"), parts.large, strict=True)
    )
    with META:
        text = nn.ModuleDict({"llm": without_skipped_layers(parts.llm), "clip": CLIPText(parts.clip)})
        if parts.llava is not None:
            text["vision"] = VisionTower(parts.llava)
        text = text.to(of_text)
        transformer, vae = HunyuanVideoTransformer(parts.transformer).to(of_transformer), CausalVAE(parts.vae).to(of_vae)
    if device.type == "cpu" and parts.in_files[0]:
        _stay_as_stored(text.get_submodule("llm"), parts.stored[0], of_text)
    if device.type == "cpu" and parts.in_files[1] and not parts.in_8_bits:
        _stay_as_stored(transformer, parts.stored[1], of_transformer)
    if parts.in_8_bits:
        fp8.quantize(transformer)
    for model in (text, transformer, vae):
        model.requires_grad_(False)
    in_file = device.type == "cpu" and parts.in_files[1]
    on_meta = [(lora.to(META), strength) for lora, strength in loras]
    runtime = replace(runtime, attention=planned_as(runtime.attention), block_ops="auto")
    streamed = assemble(Models(transformer, text, vae), runtime, world, loras=on_meta, in_file=in_file)
    return text, transformer, vae, streamed


def _stay_as_stored(model: nn.Module, stored: torch.dtype, dtype: torch.dtype) -> None:
    weights = [(f"{name}.weight", layer.weight) for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Embedding)]
    leave_as_stored(model, {name: [weight.to(stored)] for name, weight in weights}, dtype)


def first_of(degrees: Degrees) -> World:
    """The first of so many ranks, which has most to do. On the meta device it needs no others."""
    groups = SequenceGroups(*(dist.ProcessGroup(0, size) for size in (degrees.ulysses, degrees.ring)))  # pyright: ignore[reportCallIssue]
    return World(META, 0, degrees.ranks, degrees, sequence=groups if degrees.ulysses * degrees.ring > 1 else None)


def tokens_of(parts: Parts, sampling: FullSampling) -> int:
    """Image tokens of a video."""
    return math.prod(parts.transformer.grid(parts.vae.latent_shape(sampling.num_frames, sampling.height, sampling.width)))


def seen_at_once(shape: tuple[int, ...], runtime: Runtime) -> tuple[tuple[int, ...], int]:
    """The shape of the latents that the transformer sees at once, and how often it is called in a step, for one branch of guidance."""
    through = windows.of(shape[2], runtime.window, ring=False)
    return (shape, 1) if through is None else ((*shape[:2], through.size, *shape[3:]), len(through.at(0)))


def steps_of(parts: Parts, sampling: FullSampling, runtime: Runtime, degrees: Degrees = Degrees()) -> list[tuple[int, Step]]:  # noqa: B008
    """How many steps of which kind denoise a video: those of smaller grids first. Their attention is as dense as all are on average."""
    config, whole = parts.transformer, parts.vae.latent_shape(sampling.num_frames, sampling.height, sampling.width)
    full, _ = seen_at_once(whole, runtime)
    density = mean_density(runtime.attention_density, sampling.num_steps, config.num_double_blocks + config.num_single_blocks)
    return [
        (
            stage.stop - stage.start,
            Step(math.prod(config.grid(stage.shape)), parts.text_tokens, degrees, Wire(runtime.wire), density=density, config=config),
        )
        for stage in progressive.stages(full, sigmas_of(sampling), runtime, config.patch_size)
    ]


def made_beside(model: nn.Module, *, came_in_8_bits: bool) -> int:
    """Bytes that are made beside weights that stay in their file: 8 bits, unless they came so, and adapters."""
    tensors: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, LoraLinear):
            tensors += module.lora_down, module.lora_up
        if isinstance(module, fp8.Fp8Linear) and not came_in_8_bits:
            tensors += (module.weight,)
    return sum(tensor.nbytes for tensor in tensors)


def bytes_of(module: nn.Module) -> int:
    return total(tensors_of(module))


def total(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
