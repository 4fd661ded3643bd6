"""What a video takes, before anything is loaded: memory on the device and on the host, and time beside other ways to make it.

The stages of the pipeline run on the meta device, where nothing is computed but the same tensors are made and freed, with every byte
counted. So the plan follows the code and has no formula of its own for what is alive inside a block or a tile. Weights are added: all of
them, those of the model that works, or (counted, as they come and go) two of its blocks.

Of several GPUs the first is planned, which has most to do: its share of the tokens runs, and nothing is sent.

Attention counts as a fused kernel, which keeps no scores. Times are arithmetic: operations and bytes over the rates of a `Card`.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hunyuan_video import progressive, windows
from hunyuan_video.assembly import Models, assemble, dtype_of
from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint import clip_config, fitting_sizes, llm_config, read_vae, stays_in_file
from hunyuan_video.checkpoint.seeing import llava_config
from hunyuan_video.checkpoint.stored import open_transformer
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.cost import (
    NEARLY,
    OURS,
    RTX_4090,
    VAE_EFFICIENCY,
    Card,
    Step,
    largest_load,
    step_seconds,
    tiles,
)
from hunyuan_video.distributed.pipefusion import keep_blocks, one_step_old, stage_steps
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import CPU, Degrees, SequenceGroups, World
from hunyuan_video.kernels.choice import planned_as
from hunyuan_video.memory import LiveBytes, available_memory
from hunyuan_video.models.clip import CLIPText, CLIPTextConfig
from hunyuan_video.models.llama import LlamaConfig
from hunyuan_video.models.text import MAX_TEXT_TOKENS, PREFIX_TOKENS, without_skipped_layers
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.models.vision import PREFIX_TOKENS as SEEING_PREFIX_TOKENS
from hunyuan_video.models.vision import LlavaConfig, VisionTower
from hunyuan_video.sampling import sigmas_of
from hunyuan_video.transforms import fp8, step_cache
from hunyuan_video.transforms.ahead import ahead, early_tensors
from hunyuan_video.transforms.lora import Lora, LoraLinear, Strength
from hunyuan_video.transforms.offload import tensors_of
from hunyuan_video.transforms.sparse import mean_density
from hunyuan_video.transforms.tiling import TileSizes, decode_pieces
from hunyuan_video.video import to_levels
from hunyuan_video.weights import Weights, is_large

log = logging.getLogger(__name__)

META, CUDA = torch.device("meta"), torch.device("cuda")
OFFLOADS: tuple[Literal["none", "models", "blocks"], ...] = ("none", "models", "blocks")
Stage = Literal["encode", "denoise", "decode"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Loras = Sequence[tuple[Lora, Strength]]
# Of the memory that a video leaves free on a CPU, the share that weights in files may hold on to. What is read ahead has to find room
# without anything being forgotten for it: the system would first forget what has just been read, and not yet been used.
KEPT = 0.75
RESERVED = 0.8e9  # bytes of the CUDA context, and of its libraries' work space
NCCL = 0.5e9  # bytes of its buffers among several GPUs, an allowance
FRAGMENTED = 1.05  # what the allocator takes for each byte in use

FASTER_IN_8_BITS = 2  # times, where both factors are
IN_8_BITS = [getattr(torch, name) for name in ("_scaled_mm", "_scaled_mm_v2") if hasattr(torch, name)]  # what F.scaled_mm calls, too
COPIED = 2.0e10  # bytes a second from the host, on PCIe 4.0 x16


@dataclass(frozen=True)
class Parts:
    """The sizes of a model's parts, and whether its transformer's weights come in 8 bits. The defaults are the released 13B."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    llm: LlamaConfig = field(default_factory=LlamaConfig)
    clip: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    in_8_bits: bool = False
    large: tuple[bool, bool, bool] = (True, True, False)
    """whether the text encoders, the transformer and the VAE are stored in so much that a CPU computes them in bfloat16"""
    in_files: tuple[bool, bool, bool] = (True, True, False)
    """and uses them where they lie"""
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
        return cls(
            fitting_sizes(found),
            read_vae(found.vae)[0],
            llm_config(found.text_encoder),
            clip_config(found.text_encoder_2),
            bool(stored.scales),
            (text, transformer, vae),
            (stays_in_file(found.text_encoder, CPU), stays_in_file(found.transformer, CPU), False),
            llava_config(found.text_encoder) if found.sees else None,
        )


@dataclass(frozen=True)
class Prediction:
    """What a video takes with one `Runtime`: bytes on the device at the fullest moment of each stage, bytes on the host, and time. Of
    several GPUs on the fullest one, and on the host for it alone."""

    runtime: Runtime
    stages: dict[str, int]
    host: int
    seconds: float
    gpus: int = 1

    @property
    def device(self) -> int:
        return max(self.stages.values())

    @property
    def wanted(self) -> int:
        """What a GPU must have free."""
        return round(self.device * FRAGMENTED + RESERVED + (NCCL if self.gpus > 1 else 0))

    def fits(self, memory: int, host: int | None) -> bool:
        return self.wanted <= memory and (host is None or self.host <= host)


@dataclass(frozen=True)
class OnCpu:
    """What a video takes on a CPU: bytes of its own at the fullest moment of each stage, weights that were loaded included; and bytes that
    stay in their files, of which the transformer's are needed at every step."""

    loaded: int
    stages: dict[str, int]
    in_files: int
    at_every_step: int

    def room(self, free: int) -> int:
        """Of `free` bytes, those that weights in files may hold on to from step to step."""
        return max(0, round(KEPT * (free - max(self.stages.values()))))

    def sentence(self, free: int) -> str:
        """What to expect of `free` bytes of memory.

        Raises:
            ValueError: they are too few.
        """
        stage = max(reversed(STAGES), key=lambda name: self.stages[name])
        own = self.stages[stage]
        if own > free:
            advice = "with these weights and settings nothing fits" if self.loaded > free else "make it smaller or shorter"
            raise ValueError(
                f"On a CPU this video needs {own / 1e9:.1f} GB of memory to {stage}, and {free / 1e9:.1f} GB are free: {advice}."
            )
        again = max(0, self.at_every_step - self.room(free))
        disk = f"{again / 1e9:.1f} GB of the transformer's are read from the disk at every step" if again else "the transformer's fit, too"
        return (
            f"On this CPU the video takes {own / 1e9:.1f} of {free / 1e9:.1f} GB of memory and uses {self.in_files / 1e9:.1f} GB of "
            f"weights in their files: {disk}."
        )


def on_cpu(parts: Parts, sampling: FullSampling | None, runtime: Runtime, loras: Loras = ()) -> OnCpu:
    """What a video, or loading alone, takes on a CPU, where weights of large parts stay in their files, but for those that are put into 8
    bits."""
    *models, _ = text, transformer, vae, _ = _build(parts, replace(runtime, offload="none"), CPU, loras)
    loaded, in_files = [], []
    for model, stays in zip(models, parts.in_files, strict=True):
        loaded.append(_made(model, came_in_8_bits=model is transformer and parts.in_8_bits) if stays else _bytes(model))
        in_files.append(_bytes(model) - loaded[-1])
    own = sum(loaded)
    stages: dict[str, int] = dict.fromkeys(STAGES, own)
    if sampling is not None:
        shape = parts.vae.latent_shape(sampling.num_frames, sampling.height, sampling.width)
        stages["encode"] += count(
            text, lambda: _encode(text.get_submodule("llm"), 2 if sampling.cfg_scale > 1 else 1, parts.read_tokens)
        ).most
        stages["denoise"] += _count_denoising(transformer, seen_at_once(shape, runtime)[0], runtime, sampling, parts.text_tokens).most
        stages["decode"] += _count_decoding(vae, shape, runtime.vae_tiling).most
    once = [tensor for tensor in early_tensors(transformer).values() if parts.in_8_bits or tensor.dtype != fp8.FP8]  # 8 bits are made
    return OnCpu(own, stages, sum(in_files), max(0, in_files[1] - _total(once)))


def choose(
    parts: Parts, sampling: FullSampling, runtime: Runtime, device: torch.device, loras: Loras = (), gpus: int = 1, here: int = 1
) -> Runtime:
    """`runtime`, with the degrees by which so many `gpus` share the video, with the fastest kind of offload that fits what is free now,
    where `here` processes share the host. Without a GPU there is nothing to move.

    Raises:
        ValueError: none fits; says what does not.
    """
    if device.type != "cuda":
        return replace(runtime, offload="none")
    memory, host = available_memory(device), available_memory(torch.device("cpu")) // here
    predictions = predict(parts, sampling, [replace(runtime, offload=offload) for offload in OFFLOADS], loras, gpus)
    best = fastest(predictions, memory, host)
    if best is None:
        raise ValueError(refusal(predictions, memory, host))
    log.info("Offload: %s (%.1f of %.1f GB free on the GPU will be used).", best.runtime.offload, best.wanted / 1e9, memory / 1e9)
    return best.runtime


def fastest(predictions: Sequence[Prediction], memory: int, host: int | None) -> Prediction | None:
    """The fastest that fits into the GPU's memory and, where it is known, the host's. In tiles if there is a choice, for that is how the
    VAE is meant to decode; and of several GPUs, each of which would have its own copy of the weights on the host, without one if that is
    nearly as fast, and then whole if they fit."""
    fitting = [prediction for prediction in predictions if prediction.fits(memory, host)]
    nearly = NEARLY * min((prediction.seconds for prediction in fitting), default=0)

    def order(prediction: Prediction) -> tuple[bool, bool, bool, float]:
        stays = prediction.gpus > 1 and prediction.runtime.offload == "none" and prediction.seconds <= nearly
        return not prediction.runtime.vae_tiling, not stays, stays and prediction.runtime.shard, prediction.seconds

    return min(fitting, key=order, default=None)


def proposal(predictions: Sequence[Prediction], memory: int, host: int | None) -> str:
    """What to ask `generate` for, in a sentence.

    Raises:
        ValueError: none fits; says what does not.
    """
    best = fastest(predictions, memory, host)
    if best is None:
        raise ValueError(refusal(predictions, memory, host))
    gpus = f" on each of {best.gpus} GPUs" if best.gpus > 1 else ""
    words = [f"--gpus {best.gpus}"] * (best.gpus > 1) + flags(best.runtime)
    return f"The fastest that fits {memory / 1e9:.1f} GB{gpus} takes {best.wanted / 1e9:.1f}: {' '.join(words)}"


def flags(runtime: Runtime) -> list[str]:
    """How to ask for a runtime on the command line: all that is not the default, and the offload."""
    words = [f"--speed {runtime.speed}"] * (runtime.speed != "exact")
    implied = Runtime(speed=runtime.speed, fp8_matmul=runtime.fp8_matmul)  # which implies fp8, and what the preset says
    for name, default in asdict(implied).items():
        value, flag = getattr(runtime, name), name.replace("_", "-")
        if name == "offload" or (value != default and not isinstance(value, bool)):
            words += [f"--{flag} {value}"]
        elif value != default:
            words += [f"--{flag}" if value else f"--no-{flag}"]
    return words + ["--fp8-matmul"] * runtime.fp8_matmul


def refusal(predictions: Sequence[Prediction], memory: int, host: int | None) -> str:
    """Why none fits, in a sentence."""
    least = min(predictions, key=lambda prediction: prediction.device)
    if least.wanted <= memory and host is not None:
        needed = min(prediction.host for prediction in predictions if prediction.wanted <= memory)
        return f"This video needs {needed / 1e9:.1f} GB of host memory, and {host / 1e9:.1f} GB are free; --fp8 and --text-fp8 take less."
    stage = max(reversed(STAGES), key=lambda name: least.stages[name])
    return (
        f"This video needs {least.wanted / 1e9:.1f} GB of GPU memory to {stage}, and {memory / 1e9:.1f} GB are free: "
        "make it smaller or shorter, or see what --fp8, --text-fp8 and tiles save with `hunyuan-video plan`."
    )


def everything(parts: Parts, runtime: Runtime, gpus: int = 1) -> list[Runtime]:
    """`runtime` with each kind of offload, in 16 and in 8 bits, decoding in tiles and whole. Of several GPUs, which share
    the tiles, also with weights spread over them."""
    places = [(offload, False) for offload in OFFLOADS] + [("none", True)] * (gpus > 1)
    bits = [True] if runtime.fp8 or parts.in_8_bits else [False, True]
    if runtime.pipefusion_patches is not None:  # which every block is needed for, again and again
        places = [(offload, False) for offload in ("none", "models")]
    choices = product(places, bits, (True, False) if gpus == 1 else (True,))
    return [
        replace(runtime, offload=offload, shard=spread, fp8=in_8_bits, vae_tiling=tiling)
        for (offload, spread), in_8_bits, tiling in choices
    ]


def table(predictions: Sequence[Prediction]) -> str:
    """One line each, and one that says what the numbers are."""
    names, many = list(predictions[0].stages), predictions[0].gpus > 1
    best = min(prediction.seconds for prediction in predictions)
    heads = f"{'offload':<8} " + f"{'shard':<6} " * many + f"{'8 bits':<7} {'tiles':<6}"
    lines = [heads + "".join(f"{name:>9}" for name in (*names, "GPU", "host", "time"))]
    for prediction in predictions:
        sizes = [*(prediction.stages[name] for name in names), prediction.wanted, prediction.host]
        choice = prediction.runtime
        spread, in_8_bits, tiles = ("yes" if on else "no" for on in (choice.shard, choice.fp8, choice.vae_tiling))
        lines.append(
            f"{choice.offload:<8} "
            + f"{spread:<6} " * many
            + f"{in_8_bits:<7} {tiles:<6}"
            + "".join(f"{size / 1e9:9.2f}" for size in sizes)
            + f"{prediction.seconds / best:9.2f}"
        )
    lines.append(
        "GB (10^9 bytes) at the fullest moment of each stage; GPU: what must be free there; host: memory beside it; time: times the fastest"
        + "; of several GPUs: of the fullest" * many
    )
    return "\n".join(lines)


def predict(
    parts: Parts, sampling: FullSampling, runtimes: Iterable[Runtime], loras: Loras = (), gpus: int = 1, card: Card = RTX_4090
) -> list[Prediction]:
    """What a video takes on a GPU, or on each of several, with each of `runtimes`, whose degrees are given where they are several. If the
    degrees are for half of them, each half computes one branch of guidance."""
    counted: dict[object, Work] = {}  # stages that are the same for several

    def once(key: object, work: Callable[[], Work]) -> Work:
        if key not in counted:
            counted[key] = work()
        return counted[key]

    return [_predict(parts, sampling, runtime, loras, gpus, card, once) for runtime in runtimes]


def _predict(
    parts: Parts,
    sampling: FullSampling,
    runtime: Runtime,
    loras: Loras,
    gpus: int,
    card: Card,
    once: Callable[[object, Callable[[], Work]], Work],
) -> Prediction:
    degrees = Degrees(runtime.ulysses_degree or 1, runtime.ring_degree or 1)
    *models, streamed = text, transformer, vae, _ = _build(parts, runtime, CUDA, loras, first_of(degrees))
    loaded, stages = _bytes(transformer), runtime.pipefusion_stages
    keep_blocks(transformer, 0, stages)  # the first stage, which has as many as any
    prompts = 2 if sampling.cfg_scale > 1 else 1
    early = [] if runtime.shard else [*early_tensors(transformer).values()]  # which stay on the host
    travelling = {id(tensor) for tensor in streamed} - {id(tensor) for tensor in early}
    passes = prompts * degrees.ranks * stages // gpus if gpus > degrees.ranks * stages else prompts
    size = [_bytes(text), _bytes(transformer) - _total(early), _bytes(vae)]
    moving = [sum(tensor.nbytes for tensor in tensors_of(model) if id(tensor) in travelling) for model in models]
    resident = [sum(size)] * 3 if runtime.offload == "none" else [whole - part for whole, part in zip(size, moving, strict=True)]
    if runtime.shard:
        resident = _spread(text, transformer, vae, gpus)

    shape = parts.vae.latent_shape(sampling.num_frames, sampling.height, sampling.width)
    seen, views = seen_at_once(shape, runtime)
    work = [
        once(
            ("encode", runtime.offload == "blocks", runtime.text_fp8),
            lambda: count(text, lambda: _encode(text.get_submodule("llm"), prompts, parts.read_tokens)),
        ),
        once(
            (
                *("denoise", runtime.window, runtime.offload == "blocks", runtime.fp8, runtime.fp8_matmul, runtime.attention),
                *(degrees, runtime.wire, runtime.pipefusion_patches is None, stages, runtime.step_cache),
            ),
            lambda: _count_denoising(transformer, seen, runtime, sampling, parts.text_tokens),
        ),
        once(("decode", runtime.vae_tiling), lambda: _count_decoding(vae, shape, runtime.vae_tiling)),
    ]

    stepped = steps_of(parts, sampling, runtime, degrees)
    tokens = _mean([(n, step.work(0).tokens) for n, step in stepped])
    in_8_bits = [module for module in transformer.modules() if isinstance(module, fp8.Fp8Linear)]
    expanded = sum(module.weight.numel() for module in in_8_bits if module.product is fp8.expanded)
    rate, sizes = card.flops * card.efficiency, tiles((shape[2], shape[3], shape[4])) if runtime.vae_tiling else [1.0]
    saved = tokens * (1 - 1 / FASTER_IN_8_BITS) / rate / stages if runtime.fp8_matmul else 0.0
    seconds = _mean([(n, step_seconds(step, card).total) for n, step in stepped])
    stepping = seconds if stages == 1 else _mean([(n, step.work(0).total) for n, step in stepped]) / stages / rate
    computing = [
        work[0].operations / rate,
        stepping - saved + expanded * 5 / card.moved,  # one byte read; two written, and read by the product
        work[2].operations / (card.flops * VAE_EFFICIENCY) * largest_load(sizes, gpus) / sum(sizes),
    ]
    gathered = [whole * (gpus - 1) / gpus / card.link if runtime.shard else 0.0 for whole in (*size[:2], 0)]
    hidden = [max(part / COPIED, sent) for part, sent in zip(moving, gathered, strict=True)]
    copied = (_total(early) + (0 if runtime.offload == "none" else sum(resident))) / COPIED
    if runtime.offload == "blocks":  # of each model the first block, once: nothing computes meanwhile
        firsts = [tensor for blocks in Models(transformer, text).stacks().values() for tensor in tensors_of(blocks[0])]
        copied += _total(tensor for tensor in firsts if id(tensor) in travelling) / COPIED
    # 8 bits are made, and other stages' blocks dropped, on the host.
    made = size[0] * runtime.text_fp8 + loaded * (runtime.fp8 or stages > 1)
    if runtime.shard:
        made = size[0] + size[1]  # whole, on the first GPU's host
    frames = 3 * sampling.num_frames * sampling.height * sampling.width
    steps = stage_steps(stages, runtime.pipefusion_patches or 1, runtime.warmup_steps, sampling.evaluations)
    repeats = 1, passes * steps * views, 1
    return Prediction(
        runtime,
        {name: held + done.most for name, held, done in zip(STAGES, resident, work, strict=True)},
        (max(made, _total(early)) if runtime.offload == "none" else sum(size) + _total(early)) + 2 * frames,
        OURS.alone + copied + sum(n * max(times) for n, *times in zip(repeats, computing, hidden, strict=True)),
        gpus,
    )


def _spread(text: nn.ModuleDict, transformer: HunyuanVideoTransformer, vae: CausalVAE, gpus: int) -> list[int]:
    """Bytes of weights on each of several GPUs over which they are spread, stage by stage. Of the model that works, two blocks are gathered
    (the one at work, and the next) and whatever is in no block."""
    llm, stacks = text.get_submodule("llm"), Models(transformer, text).stacks()
    spread = -(-(_bytes(llm) + _bytes(transformer)) // gpus)
    gathered = []
    for model, blocks in ((llm, stacks["text"]), (transformer, stacks["transformer"])):
        each = sorted(map(_bytes, blocks))
        gathered.append(_bytes(model) - sum(each) + sum(each[-2:]))
    return [spread + _bytes(text) - _bytes(llm) + _bytes(vae) + more for more in (*gathered, 0)]


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


def _mean(counted: Sequence[tuple[int, float]]) -> float:
    return sum(n * value for n, value in counted) / sum(n for n, _ in counted)


# What the stages of the pipeline do, on the meta device.


def _build(
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
    if parts.in_8_bits:
        fp8.quantize(transformer)
    for model in (text, transformer, vae):
        model.requires_grad_(False)
    in_file = device.type == "cpu" and parts.in_files[1]
    on_meta = [(lora.to(META), strength) for lora, strength in loras]
    runtime = replace(runtime, attention=planned_as(runtime.attention), block_ops="auto")
    streamed = assemble(Models(transformer, text, vae), runtime, world, loras=on_meta, in_file=in_file)
    return text, transformer, vae, streamed


def first_of(degrees: Degrees) -> World:
    """The first of so many ranks, which has most to do. On the meta device it needs no others."""
    groups = SequenceGroups(*(dist.ProcessGroup(0, size) for size in (degrees.ulysses, degrees.ring)))  # pyright: ignore[reportCallIssue]
    return World(META, 0, degrees.ranks, degrees, sequence=groups if degrees.ulysses * degrees.ring > 1 else None)


def _made(model: nn.Module, *, came_in_8_bits: bool) -> int:
    """Bytes that are made beside weights that stay in their file: 8 bits, unless they came so, and adapters."""
    tensors: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, LoraLinear):
            tensors += module.lora_down, module.lora_up
        if isinstance(module, fp8.Fp8Linear) and not came_in_8_bits:
            tensors += (module.weight,)
    return sum(tensor.nbytes for tensor in tensors)


def _bytes(module: nn.Module) -> int:
    return _total(tensors_of(module))


def _total(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _encode(llm: nn.Module, prompts: int, num_tokens: int) -> None:
    """CLIP is a hundredth of the language model, its tower for pictures a twentieth, before it."""
    llm(torch.empty(prompts, num_tokens, dtype=torch.long, device=META))


def _count_denoising(
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


_decodings: dict[tuple[VAEConfig, torch.dtype, tuple[int, ...], TileSizes | None], Work] = {}
_tiles: dict[tuple[VAEConfig, torch.dtype, torch.Size], Work] = {}


def _count_decoding(vae: CausalVAE, shape: tuple[int, ...], tiling: bool) -> Work:
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
