"""Every transform, two of them together as `assemble` puts them, and the same models by hand; and what each rank of the pairs test does.

By hand means: plain layers, whose weights are what the transforms say that they are, in one process, with everything in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from adapters import random_lora
from conftest import TINY
from measure import randomize
from pipefusion_ranks import Old
from safetensors.torch import save_file
from tiny_checkpoint import VAE, llama_config
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from hunyuan_video import checkpoint
from hunyuan_video.assembly import Models, Training, assemble, check
from hunyuan_video.config import BlockOps, Runtime
from hunyuan_video.distributed.pipefusion import one_step_old, spread_blocks
from hunyuan_video.distributed.sequence import parallelize_sequence, parts_of
from hunyuan_video.distributed.sharding import shard
from hunyuan_video.distributed.tiles import over_ranks
from hunyuan_video.distributed.world import Degrees, World, world_of_group
from hunyuan_video.kernels import choice, fused, table
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.llama import LlamaConfig
from hunyuan_video.models.text import without_skipped_layers
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer, trunk
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.training.plan import gathered
from hunyuan_video.transforms import chunk, fp8, lean, sparse
from hunyuan_video.transforms.ahead import Prepare, ahead, early_tensors
from hunyuan_video.transforms.as_stored import leave_as_stored
from hunyuan_video.transforms.chunk import in_chunks
from hunyuan_video.transforms.lean import lean_blocks, use_pieces
from hunyuan_video.transforms.lora import Lora, LoraLinear, add_lora, apply_lora, linear_layers, merge_lora
from hunyuan_video.transforms.offload import lock_at_home, offload_blocks, on_device
from hunyuan_video.transforms.phase_upsample import upsample_by_phases
from hunyuan_video.transforms.read_ahead import read_ahead
from hunyuan_video.transforms.recompute import recompute_blocks
from hunyuan_video.transforms.sparse import sparse_attention
from hunyuan_video.transforms.step_cache import CachedSteps, first_block
from hunyuan_video.transforms.tiling import Run, TileSizes, decode_pieces

LLM = LlamaConfig.from_json(llama_config().to_dict())
CONCAT = replace(TINY, in_channels=9)  # more than come out: noisy latents, those of a picture, and a mask
HOME, ELSEWHERE = torch.device("cpu"), torch.device("cpu:0")  # another name, so that everything is really copied
STRENGTH = 0.7
TILES = TileSizes(pixels=32, frames=16)
SEVERAL_CHUNKS = 2**14  # values of one, so that the tiny clips have several


@dataclass(frozen=True)
class Transform:
    """What to ask `assemble` for, and the functions that it calls then."""

    functions: tuple[Callable[..., Any], ...]
    runtime: dict[str, Any] = field(default_factory=dict)
    lora: int | None = None  # seed of a given adapter
    in_file: bool = False
    trains: bool = False
    ranks: int = 1
    acts_on: frozenset[str] = frozenset({"transformer"})


NATIVE = next((name for name in table.KERNELS if name.startswith("native-") and choice.why_not(name, HOME, torch.float32) is None), "sdpa")
TEXT, VAE_ALONE, ALL = frozenset({"text"}), frozenset({"vae"}), frozenset({"text", "transformer", "vae"})
OPS: BlockOps = "onednn+native" if fused.why_not("onednn+native", HOME) is None else "pytorch"
TRANSFORMS = {
    "LoRA merged": Transform((merge_lora,), lora=1),
    "LoRA live": Transform((apply_lora,), lora=2, in_file=True),
    "LoRA trained": Transform((add_lora,), trains=True),
    "FP8": Transform((fp8.quantize,), {"fp8": True}),
    "FP8 matmul": Transform((fp8.multiply_in_8_bits,), {"fp8_matmul": True}),
    "text FP8": Transform((fp8.quantize,), {"text_fp8": True}, acts_on=TEXT),
    "offload models": Transform((on_device, lock_at_home), {"offload": "models"}, acts_on=ALL),
    "offload blocks": Transform((offload_blocks,), {"offload": "blocks"}, acts_on=ALL),
    "lean blocks": Transform((lean_blocks,)),
    "known ahead": Transform((ahead, early_tensors)),
    "phases": Transform((upsample_by_phases,), acts_on=VAE_ALONE),
    "chunks": Transform((in_chunks,), acts_on=VAE_ALONE),
    "tiling": Transform((decode_pieces,), {"vae_tiling": True}, acts_on=VAE_ALONE),
    "matmul attention": Transform((use_attention,), {"attention": "matmul"}),
    "chunked attention": Transform((use_attention,), {"attention": "chunked"}),
    "native attention": Transform((use_attention,), {"attention": NATIVE}),
    "other block ops": Transform((use_pieces,), {"block_ops": OPS}),
    "weights in their file": Transform((leave_as_stored, read_ahead), in_file=True),
    "activation checkpointing": Transform((recompute_blocks,), trains=True),
    "sequence parallel": Transform((parallelize_sequence,), ranks=2),
    "tiling over ranks": Transform((decode_pieces, over_ranks), {"vae_tiling": True}, ranks=2, acts_on=VAE_ALONE),
    "sharded": Transform((shard,), {"shard": True}, ranks=2, acts_on=TEXT | {"transformer"}),
    "FSDP": Transform((shard,), trains=True, ranks=2),
    "PipeFusion": Transform((one_step_old,), {"pipefusion_patches": 4, "warmup_steps": 1}),
    "block-sparse": Transform((sparse_attention,), {"attention_density": 0.5, "sparse_pattern": "tiles"}),
    "PipeFusion in stages": Transform(
        (spread_blocks, one_step_old), {"pipefusion_stages": 2, "pipefusion_patches": 3, "warmup_steps": 1}, ranks=2
    ),
    "first-block cache": Transform((first_block,), {"step_cache": "first-block", "cache_threshold": 1e9}),
}
LEFT_OUT = 4  # of five calls the one that a step cache leaves out: the first three and the last are computed
SHARDS = {"sharded", "FSDP"}
CHANGE_VALUES = {
    *("LoRA merged", "LoRA live", "LoRA trained", "FP8", "FP8 matmul", "text FP8", "tiling", "PipeFusion", "first-block cache"),
    "block-sparse",
}
BOXES = (4, 4)  # tokens of a block, and queries that share a list, so that the tiny clips have several


@dataclass(frozen=True)
class Asked:
    """What some of the transforms ask for together."""

    names: frozenset[str]

    @property
    def chosen(self) -> list[Transform]:
        return [transform for name, transform in TRANSFORMS.items() if name in self.names]

    @cached_property
    def runtime(self) -> Runtime:
        settings: dict[str, Any] = {"vae_tiling": False}
        for transform in self.chosen:
            settings |= transform.runtime
        return Runtime(**settings)

    @property
    def calls(self) -> int:
        """Of the transformer, of which the last one counts."""
        return LEFT_OUT if self.runtime.step_cache != "off" else 2 if self.runtime.pipefusion_patches is not None else 1

    @property
    def seeds(self) -> list[int]:
        return [transform.lora for transform in self.chosen if transform.lora is not None]

    @property
    def in_file(self) -> bool:
        return any(transform.in_file for transform in self.chosen)

    @property
    def trains(self) -> bool:
        return any(transform.trains for transform in self.chosen)

    @property
    def ranks(self) -> int:
        return max((transform.ranks for transform in self.chosen), default=1)

    @property
    def meet(self) -> bool:
        """Whether they act on the same model."""
        return bool(frozenset.intersection(*(transform.acts_on for transform in self.chosen)))

    @property
    def recomputes(self) -> bool:
        return "activation checkpointing" in self.names

    @property
    def trains_all_weights(self) -> bool:
        """8-bit weights have no gradient; that of the input is there whatever is trained."""
        return self.trains and "LoRA trained" not in self.names and not self.runtime.fp8


@cache
def plain() -> Models:
    """Models as they are loaded. The transformer's weights are those that bfloat16 has, too, which is what its file has."""
    transformer = randomize(HunyuanVideoTransformer(CONCAT), std=0.15).bfloat16().float()
    text = nn.ModuleDict({"llm": randomize(without_skipped_layers(LLM), seed=1, std=0.2)})
    return Models(transformer, text, randomize(CausalVAE(VAE), seed=2, std=0.2))


def given_lora(seed: int) -> Lora:
    model = plain().transformer
    assert model is not None
    return random_lora(model, seed=seed)


def adapt(model: HunyuanVideoTransformer) -> None:
    """Put adapters there that are trained, and have been for a while."""
    draw = torch.Generator().manual_seed(5)
    add_lora(model, 2, 4.0, lambda _name: True, draw)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.lora_up.data.copy_(0.2 * torch.randn(module.lora_up.shape, generator=draw))


def outcome(
    models: Models,
    device: torch.device,
    streamed: list[Tensor],
    *,
    trains: bool,
    tiling: bool,
    calls: int,
    run: Run = map,
    known: bool = False,
) -> dict[str, Tensor]:
    """What models make of the same inputs: text states, frames, a velocity (of the last of some `calls`; where all that can be `known`
    before is), and gradients of an uneven loss where there is a training."""
    transformer, text, vae = models.transformer, models.text, models.vae
    assert transformer is not None and text is not None and vae is not None
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 260, (2, 9), generator=draw)
    x, states, pooled, loss = (torch.randn(shape, generator=draw) for shape in ((1, 9, 3, 6, 4), (1, 5, 24), (1, 20), (1, 4, 3, 6, 4)))
    x.requires_grad_(trains)
    z = torch.randn(1, 4, 5, 6, 4, generator=draw)
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        with on_device(text, device, streamed):
            found["text"] = text.get_submodule("llm")(ids)
        with on_device(vae, device, streamed), patch.dict(chunk.CHUNK_SIZE, cpu=SEVERAL_CHUNKS):
            found["frames"] = torch.cat(list(decode_pieces(vae, z, TILES, run)), dim=2) if tiling else vae.decode(z)
    before, now = [torch.full((1,), 700.0 - call) for call in range(1, calls)], torch.full((1,), 500.0)
    knowing = ahead(transformer, [*before, now], (), lambda module: on_device(module, device)) if known else as_it_is(transformer)
    with torch.set_grad_enabled(trains), on_device(transformer, device, streamed), knowing as prepare:
        condition = prepare(0, states, torch.ones(1, 5, dtype=torch.bool), pooled, torch.full((1,), 4000.0))
        for t in before:
            transformer(x.flip(2), t, condition)
        velocity = transformer(x, now, condition)
        if trains:
            (velocity * loss).sum().backward()
    found["velocity"] = velocity.detach()
    if x.grad is not None:
        found["gradient of x"] = _mean(x.grad)
    for name, parameter in transformer.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = _mean(parameter.grad)
    return found


@contextmanager
def as_it_is(model: HunyuanVideoTransformer) -> Iterator[Prepare]:
    """Nothing is known before: where a training is, and where all is done by hand."""
    yield lambda branch, *inputs: replace(model.condition(*inputs), branch=branch)


def _mean(gradient: Tensor) -> Tensor:
    """Over the ranks."""
    if isinstance(gradient, DTensor):
        return gradient.full_tensor()
    if dist.is_initialized():
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    return gradient


def together(asked: Asked, folder: Path, world: World) -> dict[str, Tensor]:
    """What `assemble` makes of them. Raises a ValueError where they are refused."""
    check(
        asked.runtime,
        world,
        num_heads=TINY.num_heads,
        in_file=asked.in_file,
        training=asked.trains,
        recompute=asked.recomputes,
    )
    models = copy.deepcopy(plain())
    transformer = models.transformer
    assert transformer is not None
    if asked.in_file:
        path = folder / f"{'-'.join(sorted(asked.names))}.safetensors"
        save_file(transformer.bfloat16().state_dict(), path)
        transformer = checkpoint.load_transformer(path, torch.float32, HOME, as_stored=True)
    transformer.requires_grad_(asked.trains_all_weights)
    training = Training(torch.float32, adapt if "LoRA trained" in asked.names else None, asked.recomputes)
    models = Models(transformer, models.text, models.vae)
    loras = [(given_lora(seed), STRENGTH) for seed in asked.seeds]
    streamed = assemble(
        models,
        asked.runtime,
        world,
        loras=loras,
        in_file=asked.in_file,
        room=1 if asked.in_file else None,
        training=training if asked.trains else None,
    )
    if asked.runtime.block_ops != "auto":
        use_pieces(transformer, fused.load(asked.runtime.block_ops, HOME))
    patches = asked.runtime.pipefusion_patches
    run = over_ranks if world.size > 1 else map
    in_patches = nullcontext() if patches is None else one_step_old(transformer, patches, asked.runtime.warmup_steps)
    cache = CachedSteps(asked.runtime.step_cache, asked.runtime.cache_threshold or 0.0, LEFT_OUT + 1, world.total)
    few, one = patch.dict(lean.CHUNK, cpu=3), patch.object(lean, "GROUP_BYTES", 1)  # so that there are several of both
    # Tokens are traded for heads: one process computes the same without, and nobody would miss it.
    trades = patch.object(dist, "all_to_all_single", wraps=dist.all_to_all_single)
    with few, one, trades as traded, in_patches, cache.inside(transformer), sparsely(transformer, asked.runtime, world):
        tiling, calls, known = asked.runtime.vae_tiling, asked.calls, not asked.trains
        found = outcome(models, world.device, streamed, trains=asked.trains, tiling=tiling, calls=calls, run=run, known=known)
    assert traded.called == (world.sequence is not None)
    return found


@contextmanager
def sparsely(model: HunyuanVideoTransformer, runtime: Runtime, world: World) -> Iterator[None]:
    """As the pipeline does for a video, in a step that is sparse."""
    if runtime.attention_density == 1:
        yield
        return
    parts = partial(parts_of, ranks=1 if world.sequence is None else world.sequence.size)
    with patch.object(sparse, "block_sizes", lambda _tokens: BOXES):
        with sparse_attention(model, (3, 3, 2), runtime.attention_density, runtime.sparse_pattern, (0.0, 1.0), parts) as telling:
            telling(lambda x, _sigma: x)(torch.empty(0), 0.5)
            yield


def in_boxes(q: Tensor, k: Tensor, v: Tensor, _mask: Tensor | None) -> Tensor:
    """Attention where half of six blocks of four tokens are seen: of image tokens by those of their own box, and the two with text in them
    by all. Tokens are in boxes along a Z-order curve: of the first frame, then of the others."""

    def key(token: int) -> tuple[bool, list[str]]:
        time, row, column = token // 6, token % 6 // 2, token % 2
        bits = [f"{axis:02b}" for axis in (max(time - 1, 0), row, column)]
        return time > 0, ["".join(of_axis) for of_axis in zip(*bits, strict=True)]

    box = torch.full((23,), -1)
    for place, token in enumerate(sorted(range(18), key=key)):
        box[token] = place // 4 if place < 16 else -1
    seen = (box == box[:, None]) | (box == -1) | (box == -1)[:, None]
    return matmul(q, k, v, seen[None])


class ByHand(nn.Module):
    """A linear layer: a weight that is used as it is, with rounded activations or not, and what adapters beside it add."""

    def __init__(self, weight: Tensor, bias: Tensor | None, deltas: list[Tensor], factors: LoraLinear | None, *, rounds: bool):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.deltas, self.rounds = deltas, rounds
        if factors is not None:
            self.lora_down, self.lora_up = nn.Parameter(factors.lora_down.detach()), nn.Parameter(factors.lora_up.detach())
            self.scale = factors.alpha / len(self.lora_down)

    def forward(self, x: Tensor) -> Tensor:
        if self.rounds:
            scale = x.abs().amax(-1, keepdim=True) / 448
            out = F.linear((x / scale).to(fp8.FP8).float() * scale, self.weight, self.bias).bfloat16().float()
        else:
            out = F.linear(x, self.weight, self.bias)
        for delta in self.deltas:
            out = out + F.linear(x, delta)
        if hasattr(self, "lora_up"):
            out = out + self.scale * F.linear(x, self.lora_up @ self.lora_down)
        return out


class LeavingOut:
    """A trunk that at one call adds to what comes out of the first block what the others added at the call before."""

    def __init__(self) -> None:
        self.calls, self.by_others = 0, torch.tensor(torch.nan)

    def __call__(self, model: HunyuanVideoTransformer, img: Tensor, txt: Tensor, ctx: Context) -> Tensor:
        self.calls += 1
        after_first, _ = model.double_blocks[0](img, txt, ctx)
        if self.calls == LEFT_OUT:
            return after_first + self.by_others
        out = trunk(model, img, txt, ctx)
        self.by_others = out - after_first
        return out


def in_8_bits(weight: Tensor) -> Tensor:
    """What 8 bits keep of a weight, expanded."""
    scale = weight.abs().max() / 448
    return (weight / scale).to(fp8.FP8).float() * scale


def by_hand(asked: Asked) -> dict[str, Tensor]:
    """The same without any transform; once for all pairs that say the same of the weights."""
    runtime, trained = asked.runtime, "LoRA trained" in asked.names
    settings = runtime.fp8, runtime.fp8_matmul, runtime.text_fp8, runtime.pipefusion_patches, runtime.vae_tiling, runtime.step_cache
    settings += (runtime.attention_density,)
    key = (*settings, tuple(asked.seeds), asked.in_file, asked.trains, asked.trains_all_weights, trained)
    if key not in MADE_BY_HAND:
        MADE_BY_HAND[key] = _by_hand(asked)
    return MADE_BY_HAND[key]


MADE_BY_HAND: dict[object, dict[str, Tensor]] = {}


def _by_hand(asked: Asked) -> dict[str, Tensor]:
    models = copy.deepcopy(plain())
    transformer, text = models.transformer, models.text
    assert transformer is not None and text is not None
    trained = copy.deepcopy(transformer)
    adapt(trained)
    loras = [given_lora(seed).layers for seed in asked.seeds]
    for name, layer in linear_layers(transformer).items():
        assert isinstance(layer, nn.Linear)
        weight = layer.weight.detach().clone()
        deltas = [STRENGTH * layers[name].scale * (layers[name].up @ layers[name].down) for layers in loras]
        if not asked.in_file:
            weight, deltas = sum(deltas, weight), []
        if asked.runtime.fp8 and fp8.in_blocks(name):
            weight = in_8_bits(weight)
        factors = trained.get_submodule(name) if "LoRA trained" in asked.names else None
        assert factors is None or isinstance(factors, LoraLinear)
        rounds = asked.runtime.fp8_matmul and fp8.in_blocks(name) and "mod" not in name
        transformer.set_submodule(name, ByHand(weight, layer.bias, deltas, factors, rounds=rounds))
    transformer.requires_grad_(asked.trains_all_weights)
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(True)
    if asked.runtime.text_fp8:
        for name, parameter in text.named_parameters():
            if ".layers." in name and parameter.ndim == 2:
                parameter.data = in_8_bits(parameter.data)
    if (patches := asked.runtime.pipefusion_patches) is not None:
        for block in transformer.blocks:
            block.attention = Old(patches, num_txt=5, warmup_steps=1)
    if asked.runtime.step_cache != "off":
        transformer.trunk = LeavingOut()
    if asked.runtime.attention_density < 1:
        for block in transformer.blocks[1:]:
            block.attention = in_boxes
    return outcome(models, HOME, [], trains=asked.trains, tiling=asked.runtime.vae_tiling, calls=asked.calls)


def deviations(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each output, beside its largest number; of all gradients of parameters, the worst."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    apart: dict[str, float] = {}
    for name, value in found.items():
        kind = "gradient of parameters" if name.startswith("gradient of ") and name != "gradient of x" else name
        apart[kind] = max(apart.get(kind, 0.0), ((value - expected[name]).abs().max() / expected[name].abs().max()).item())
    return apart


def result(asked: Asked, folder: Path, world: World) -> dict[str, float] | str:
    """How far two transforms together are from the same by hand, or why they are refused."""
    try:
        found = together(asked, folder, world)
    except ValueError as refusal:
        return str(refusal)
    return deviations(found, by_hand(asked))


class Gathered(TorchDispatchMode):
    """Counts the bytes that arrive on this rank, its own included."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d" and "allgather" in func.__name__:
            self.bytes += args[0].nbytes
        return func(*args, **(kwargs or {}))


def travelled(world: World) -> dict[str, int]:
    """Bytes that are gathered for a forward pass of a bfloat16 model in 8 bits with adapters, and those that plans count."""
    model = copy.deepcopy(plain()).transformer
    assert model is not None
    model.bfloat16()
    assemble(Models(model), Runtime(fp8=True), world, training=Training(torch.bfloat16, adapt))
    planned = gathered(model, torch.bfloat16)
    states, pooled = torch.ones(1, 5, 24).bfloat16(), torch.ones(1, 20).bfloat16()
    condition = model.condition(states, torch.ones(1, 5, dtype=torch.bool), pooled, torch.ones(1))
    with torch.no_grad(), Gathered() as seen:
        model(torch.ones(1, 9, 1, 2, 2), torch.ones(1), condition)
    return {"gathered": seen.bytes, "planned": planned}


def work(rank: int, world_size: int, folder: Path, pairs: Iterable[frozenset[str]]) -> None:
    """All pairs of which one needs several ranks, on one rank; its results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    fp8.check_multiplies = lambda _device: None  # as if this were a GPU
    mesh = init_device_mesh("cpu", (world_size,))
    results = {}
    for names in pairs:
        degrees = Degrees(stages=world_size) if "PipeFusion in stages" in names else Degrees()
        world = world_of_group(HOME, Degrees(world_size) if "sequence parallel" in names else degrees)
        world = world if SHARDS & names else replace(world, mesh=None)
        results["+".join(sorted(names))] = result(Asked(names), folder, world)
    results["travelled"] = travelled(World(HOME, rank, world_size, mesh=mesh))
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
