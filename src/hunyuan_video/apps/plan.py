"""What a video takes, as a table for a person."""

from __future__ import annotations

from collections.abc import Sequence

from hunyuan_video import plan
from hunyuan_video.checkpoint.lora import read_adapter
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.distributed.world import CPU, resolve_device
from hunyuan_video.memory import available_memory
from hunyuan_video.request import Adapter
from hunyuan_video.weights import Weights


def report(found: Weights | None, sampling: Sampling, runtime: Runtime, adapters: Sequence[Adapter], memory: int | None) -> str:
    """On a GPU with each kind of offload, in 16 and in 8 bits; and what to ask for on one with so much `memory`, by default this machine's.
    Without a GPU and a memory, what it takes on this CPU. Of the released 13B, if no weights are `found`.

    Raises:
        ValueError: nothing fits into the memory; says what does not.
    """
    device = resolve_device(runtime.device)
    parts = plan.Parts() if found is None else plan.Parts.of(found)
    host = None  # of another machine, nothing is known
    if memory is None and device.type == "cuda":
        memory, host = available_memory(device), available_memory(CPU)
    loras = [read_adapter(adapter, parts.transformer) for adapter in adapters]
    video = sampling.over(FullSampling() if found is None else found.sampling())
    predictions = plan.predict(parts, video, plan.everything(parts, runtime), loras)
    what = "the released 13B; --weights names others" if found is None else f"the weights in {found.root}"
    table = f"For {what}:\n{plan.table(predictions)}"
    if memory is not None:
        return f"{table}\n\n{plan.proposal(predictions, memory, host)}"
    try:
        here = plan.on_cpu(parts, video, runtime, loras).sentence(available_memory(device))
    except ValueError as refusal:
        here = str(refusal)
    return f"{table}\n\n{here}\nThis machine has no GPU; --gpu-memory 24GB says which of these is the fastest that fits one."
