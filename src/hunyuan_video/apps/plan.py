"""What a video takes, as a table for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hunyuan_video import plan
from hunyuan_video.checkpoint.lora import read_adapter
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.distributed import cost
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import CPU, Degrees, resolve_device
from hunyuan_video.memory import available_memory
from hunyuan_video.request import Adapter
from hunyuan_video.weights import Weights


def report(
    found: Weights | None, sampling: Sampling, runtime: Runtime, adapters: Sequence[Adapter], memory: int | None, gpus: int = 1
) -> str:
    """On a GPU, or on each of several, with each kind of offload, in 16 and in 8 bits; and what to ask for where each has so much `memory`,
    by default this machine's. Without a GPU and a memory, what it takes on this CPU. Of the released 13B, if no weights are `found`.

    Raises:
        ValueError: nothing fits into the memory; says what does not. Or the runtime's degrees are not for so many GPUs.
    """
    device = resolve_device(runtime.device)
    parts = plan.Parts() if found is None else plan.Parts.of(found)
    host = None  # of another machine, nothing is known
    if memory is None and device.type == "cuda":
        memory, host = available_memory(device), available_memory(CPU) // gpus
    loras = [read_adapter(adapter, parts.transformer) for adapter in adapters]
    video = sampling.over(FullSampling() if found is None else found.sampling())
    card = cost.RTX_4090 if memory is None else cost.nearest(memory)
    many = _on_many(parts, video, runtime, gpus, card)
    predictions = plan.predict(parts, video, plan.everything(parts, many, gpus), loras, gpus, card)
    what = "the released 13B; --weights names others" if found is None else f"the weights in {found.root}"
    table = f"For {what}:\n{plan.table(predictions)}"
    if memory is not None:
        lines = [table, "", plan.proposal(predictions, memory, host)]
        if gpus > 1:
            alone = [choice for choice in plan.everything(parts, _on_one(runtime)) if choice.vae_tiling]
            lines += _beside_one(predictions, plan.predict(parts, video, alone, loras, card=card), memory, host, card)
            lines += _reasons(parts, video, many, gpus, card)
        return "\n".join(lines)
    if gpus > 1:
        return f"{table}\n\n--gpu-memory 24GB says which of these is the fastest that fits {gpus} such GPUs."
    try:
        here = plan.on_cpu(parts, video, runtime, loras).sentence(available_memory(device))
    except ValueError as refusal:
        here = str(refusal)
    return f"{table}\n\n{here}\nThis machine has no GPU; --gpu-memory 24GB says which of these is the fastest that fits one."


def _on_many(parts: plan.Parts, sampling: FullSampling, runtime: Runtime, gpus: int, card: cost.Card) -> Runtime:
    """`runtime` with the degrees that so many GPUs would share the video by.

    Raises:
        ValueError: its own are not for so many.
    """
    tokens = plan.tokens_of(parts, sampling)
    degrees = cost.degrees_of(runtime, gpus, 2 if sampling.cfg_scale > 1 else 1, parts.transformer, tokens, card)
    return _on_one(runtime) if gpus == 1 else replace(runtime, ulysses_degree=degrees.ulysses, ring_degree=degrees.ring)


def _on_one(runtime: Runtime) -> Runtime:
    return replace(runtime, ulysses_degree=None, ring_degree=None)


def _beside_one(
    many: Sequence[plan.Prediction], one: Sequence[plan.Prediction], memory: int, host: int | None, card: cost.Card
) -> list[str]:
    """How long it takes on the GPUs of `many`, of which something fits, and what one of them could do alone: sentences."""
    best, alone = plan.fastest(many, memory, host), plan.fastest(one, memory, host)
    assert best is not None
    said = [f"By arithmetic for {card.name} it takes {_time(best.seconds)}; nothing of it has been measured."]
    if alone is None:
        return [*said, f"One such GPU cannot hold this video; {best.gpus} together can."]
    how = " ".join(plan.flags(alone.runtime))
    holds = "holds it" if alone.runtime.offload == "none" else "cannot hold it all, and must bring weights from the host while it works"
    return [*said, f"One such GPU {holds} ({how}): {_time(alone.seconds)}, {alone.seconds / best.seconds:.1f} times as long."]


def _reasons(parts: plan.Parts, sampling: FullSampling, runtime: Runtime, gpus: int, card: cost.Card) -> list[str]:
    """Why these degrees, and what 8 bits on the wire would gain where that is worth it: sentences."""
    degrees, tokens = Degrees(runtime.ulysses_degree or 1, runtime.ring_degree or 1), plan.tokens_of(parts, sampling)
    if runtime.pipefusion_patches is not None:
        return []
    said = []
    if degrees.ranks > 1:
        heads, wire = parts.transformer.num_heads, Wire(runtime.wire)
        chosen = degrees == cost.best_degrees(degrees.ranks, heads, tokens, card, wire)
        given = "" if chosen else "Without the degrees that were given it would be "
        said.append(given + cost.why(degrees.ranks, heads, tokens, card, wire))
    if degrees.ranks < gpus:
        said.append(f"Each half of the GPUs ({degrees.ranks}) computes one branch of guidance.")
    exact, short = (
        cost.step_seconds(cost.Step(tokens, parts.text_tokens, degrees, wire, config=parts.transformer), card).total
        for wire in (Wire.EXACT, Wire.FP8)
    )
    if runtime.wire == "exact" and exact > cost.NEARLY * short:
        said.append(f"With --wire fp8, which changes the video a little, a step takes {short / exact:.2f} of the time.")
    return said


def _time(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
