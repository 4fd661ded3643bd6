"""What a video will take: time as videos of about its size have taken here, else as the plan has it; memory as the plan has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING

from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.demo.markup import duration
from hunyuan_video.serving.jobs import Job
from hunyuan_video.weights import Weights

if TYPE_CHECKING:
    from hunyuan_video.plan import OnCpu, Prediction

ALIKE = 1.5  # times as many pixels, for which time still grows about like them
ASKED = 100  # newest jobs that are looked at


@dataclass(frozen=True)
class Plan:
    """Bytes of memory at the fullest moment, and what there is; seconds if they are known by arithmetic. Or why it cannot be made."""

    needed: int
    there: int
    seconds: float | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class Planner:
    """Of workers on this machine, each with so many GPUs."""

    found: Weights
    runtime: Runtime
    gpus: int = 1

    def plan(self, sampling: FullSampling) -> Plan:
        """In this process. Imports torch."""
        import torch

        from hunyuan_video import plan
        from hunyuan_video.distributed.world import resolve_device
        from hunyuan_video.memory import machine_memory

        device, free, same = resolve_device(self.runtime.device), machine_memory(), replace(sampling, seed=0)
        if device.type != "cuda":
            needs = _on_cpu(self, same)
            return Plan(max(needs.stages.values()), free, refusal=_refusal(needs, free))
        memory = torch.cuda.get_device_properties(device).total_memory  # not what is free, of which workers have taken their weights
        predictions = _on_gpu(self, same, memory)
        best = plan.fastest(predictions, memory, None)
        if best is None:
            return Plan(min(prediction.wanted for prediction in predictions), memory, refusal=plan.refusal(predictions, memory, None))
        return Plan(best.wanted, memory, best.seconds)


@lru_cache(64)
def _on_cpu(planner: Planner, sampling: FullSampling) -> OnCpu:
    from hunyuan_video import plan

    return plan.on_cpu(plan.Parts.of(planner.found), sampling, planner.runtime)


@lru_cache(64)
def _on_gpu(planner: Planner, sampling: FullSampling, memory: int) -> list[Prediction]:
    from hunyuan_video import plan
    from hunyuan_video.distributed import cost

    parts, runtime, card, gpus = plan.Parts.of(planner.found), planner.runtime, cost.nearest(memory), planner.gpus
    if gpus > 1:
        tokens, branches = plan.tokens_of(parts, sampling), 2 if sampling.cfg_scale > 1 else 1
        degrees = cost.degrees_of(runtime, gpus, branches, parts.transformer, tokens, card)
        runtime = replace(runtime, ulysses_degree=degrees.ulysses, ring_degree=degrees.ring)
    choices = [replace(runtime, offload=offload) for offload in plan.OFFLOADS] if runtime.offload == "auto" else [runtime]
    return plan.predict(parts, sampling, choices, gpus=gpus, card=card)


def _refusal(needs: OnCpu, free: int) -> str | None:
    try:
        needs.sentence(free)
    except ValueError as error:
        return str(error)
    return None


def seconds_here(jobs: Sequence[Job], sampling: FullSampling) -> tuple[float, int] | None:
    """What videos of about the same size have taken from their beginning to their file, in proportion, and how many there were; None if
    there is none. Of those that were made in one go."""
    work, took = work_of(sampling), []
    for job in jobs:
        if job.status == "completed" and job.attempt == 1 and job.started_at is not None and job.completed_at is not None:
            own = job.order.sampling
            if max(pixels_of(own), pixels_of(sampling)) <= ALIKE * min(pixels_of(own), pixels_of(sampling)):
                took.append((job.completed_at - job.started_at) * work / work_of(own))
    return (median(took), len(took)) if took else None


def pixels_of(sampling: FullSampling) -> int:
    return sampling.num_frames * sampling.height * sampling.width


def work_of(sampling: FullSampling) -> int:
    return pixels_of(sampling) * sampling.evaluations * (2 if sampling.cfg_scale > 1 else 1)


def sentence(plan: Plan | None, here: tuple[float, int] | None) -> str:
    """For people; without a plan, of which there may be none yet, only what is known of the time."""
    if plan is not None and plan.refusal is not None:
        return plan.refusal
    if here is not None:
        seconds, number = here
        time = f"about {duration(seconds)}, as {'a video' if number == 1 else f'{number} videos'} of this size took here"
    elif plan is not None and plan.seconds is not None:
        time = f"about {duration(plan.seconds)} by arithmetic; none of this size has been made here yet"
    else:
        time = "time not known yet: none of this size has been made here"
    memory = "" if plan is None else f" {plan.needed / 1e9:.1f} of {plan.there / 1e9:.1f} GB of memory."
    return f"{time[0].upper()}{time[1:]}.{memory}"
