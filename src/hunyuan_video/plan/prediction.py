"""What a video takes: bytes on the device and on the host, and time. Times are arithmetic: operations and bytes over the rates of a `Card`.

Of several GPUs the first is planned, which has most to do: its share of the tokens runs, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from hunyuan_video.assembly import Models
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.cost import OURS, RTX_4090, VAE_EFFICIENCY, Card, largest_load, step_seconds, tiles
from hunyuan_video.distributed.pipefusion import keep_blocks, stage_steps
from hunyuan_video.distributed.world import CPU, Degrees
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.plan.counting import FASTER_IN_8_BITS, Work, count, count_decoding, count_denoising, encode
from hunyuan_video.plan.parts import (
    CUDA,
    Loras,
    Parts,
    build,
    bytes_of,
    first_of,
    made_beside,
    seen_at_once,
    steps_of,
    total,
)
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.ahead import early_tensors
from hunyuan_video.transforms.offload import tensors_of

Stage = Literal["encode", "denoise", "decode"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Of the memory that a video leaves free on a CPU, the share that weights in files may hold on to. What is read ahead has to find room
# without anything being forgotten for it: the system would first forget what has just been read, and not yet been used.
KEPT = 0.75
RESERVED = 0.8e9  # bytes of the CUDA context, and of its libraries' work space
NCCL = 0.5e9  # bytes of its buffers among several GPUs, an allowance
FRAGMENTED = 1.05  # what the allocator takes for each byte in use
COPIED = 2.0e10  # bytes a second from the host, on PCIe 4.0 x16


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
    *models, _ = text, transformer, vae, _ = build(parts, replace(runtime, offload="none"), CPU, loras)
    loaded, in_files = [], []
    for model, stays in zip(models, parts.in_files, strict=True):
        loaded.append(made_beside(model, came_in_8_bits=model is transformer and parts.in_8_bits) if stays else bytes_of(model))
        in_files.append(bytes_of(model) - loaded[-1])
    own = sum(loaded)
    stages: dict[str, int] = dict.fromkeys(STAGES, own)
    if sampling is not None:
        shape = parts.vae.latent_shape(sampling.num_frames, sampling.height, sampling.width)
        stages["encode"] += count(
            text, lambda: encode(text.get_submodule("llm"), 2 if sampling.cfg_scale > 1 else 1, parts.read_tokens)
        ).most
        stages["denoise"] += count_denoising(transformer, seen_at_once(shape, runtime)[0], runtime, sampling, parts.text_tokens).most
        stages["decode"] += count_decoding(vae, shape, runtime.vae_tiling).most
    once = [tensor for tensor in early_tensors(transformer).values() if parts.in_8_bits or tensor.dtype != fp8.FP8]  # 8 bits are made
    return OnCpu(own, stages, sum(in_files), max(0, in_files[1] - total(once)))


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
    *models, streamed = text, transformer, vae, _ = build(parts, runtime, CUDA, loras, first_of(degrees))
    loaded, stages = bytes_of(transformer), runtime.pipefusion_stages
    keep_blocks(transformer, 0, stages)  # the first stage, which has as many as any
    prompts = 2 if sampling.cfg_scale > 1 else 1
    early = [] if runtime.shard else [*early_tensors(transformer).values()]  # which stay on the host
    travelling = {id(tensor) for tensor in streamed} - {id(tensor) for tensor in early}
    passes = prompts * degrees.ranks * stages // gpus if gpus > degrees.ranks * stages else prompts
    size = [bytes_of(text), bytes_of(transformer) - total(early), bytes_of(vae)]
    moving = [sum(tensor.nbytes for tensor in tensors_of(model) if id(tensor) in travelling) for model in models]
    resident = [sum(size)] * 3 if runtime.offload == "none" else [whole - part for whole, part in zip(size, moving, strict=True)]
    if runtime.shard:
        resident = spread(text, transformer, vae, gpus)

    shape = parts.vae.latent_shape(sampling.num_frames, sampling.height, sampling.width)
    seen, views = seen_at_once(shape, runtime)
    work = [
        once(
            ("encode", runtime.offload == "blocks", runtime.text_fp8),
            lambda: count(text, lambda: encode(text.get_submodule("llm"), prompts, parts.read_tokens)),
        ),
        once(
            (
                *("denoise", runtime.window, runtime.offload == "blocks", runtime.fp8, runtime.fp8_matmul, runtime.attention),
                *(degrees, runtime.wire, runtime.pipefusion_patches is None, stages, runtime.step_cache),
            ),
            lambda: count_denoising(transformer, seen, runtime, sampling, parts.text_tokens),
        ),
        once(("decode", runtime.vae_tiling), lambda: count_decoding(vae, shape, runtime.vae_tiling)),
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
    copied = (total(early) + (0 if runtime.offload == "none" else sum(resident))) / COPIED
    if runtime.offload == "blocks":  # of each model the first block, once: nothing computes meanwhile
        firsts = [tensor for blocks in Models(transformer, text).stacks().values() for tensor in tensors_of(blocks[0])]
        copied += total(tensor for tensor in firsts if id(tensor) in travelling) / COPIED
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
        (max(made, total(early)) if runtime.offload == "none" else sum(size) + total(early)) + 2 * frames,
        OURS.alone + copied + sum(n * max(times) for n, *times in zip(repeats, computing, hidden, strict=True)),
        gpus,
    )


def spread(text: nn.ModuleDict, transformer: HunyuanVideoTransformer, vae: CausalVAE, gpus: int) -> list[int]:
    """Bytes of weights on each of several GPUs over which they are spread, stage by stage. Of the model that works, two blocks are gathered
    (the one at work, and the next) and whatever is in no block."""
    llm, stacks = text.get_submodule("llm"), Models(transformer, text).stacks()
    spread = -(-(bytes_of(llm) + bytes_of(transformer)) // gpus)
    gathered = []
    for model, blocks in ((llm, stacks["text"]), (transformer, stacks["transformer"])):
        each = sorted(map(bytes_of, blocks))
        gathered.append(bytes_of(model) - sum(each) + sum(each[-2:]))
    return [spread + bytes_of(text) - bytes_of(llm) + bytes_of(vae) + more for more in (*gathered, 0)]


def _mean(counted: Sequence[tuple[int, float]]) -> float:
    return sum(n * value for n, value in counted) / sum(n for n, _ in counted)
