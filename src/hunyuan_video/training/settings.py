"""What a training of the transformer is told: frozen dataclasses, read from the command line and from recipes, kept in run folders."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hunyuan_video import weights
from hunyuan_video.config import ComputingDType, Runtime
from hunyuan_video.training.objectives import Objective
from hunyuan_video.training.validate import Validation

# What may be another when a run is continued: a lower learning rate after a divergence, or an earlier or later end.
MAY_CHANGE = ("num_steps", "learning_rate", "decay_fraction", "clip_norm", "max_skipped")


@dataclass(frozen=True, kw_only=True)
class Training(Objective):
    """What every kind of training is told. But for `MAY_CHANGE`, a run is only continued with the same settings."""

    cache: Path
    """the latent cache"""
    num_steps: int = 10_000
    token_budget: int = 8192
    """a micro-batch holds samples of one size with at most so many transformer tokens together, and at least one sample"""
    batches_per_step: int = 1
    """micro-batches whose gradients make one step, over all ranks: a multiple of their number"""
    image_ratio: float | None = None
    """share of the micro-batches that are images; none: as they come"""
    learning_rate: float = 1e-4
    """1e-4 suits a LoRA, 1e-5 all weights of a trained model, 1.5e-3 the miniature from nothing"""
    warmup_steps: int = 100
    decay_fraction: float = 0.0
    """the last part of the run, in which the learning rate falls linearly to 1 % of its value"""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float | None = 0.999
    """of the average of the weights, which is what is validated and written; none: the latest weights are"""
    max_skipped: int = 10
    """steps in a row whose loss or gradient may be not finite, and which then change nothing, before the run stops"""
    seed: int = 0
    dtype: ComputingDType = "auto"
    """what computes (auto: bfloat16, but float32 on a CPU that does not multiply that); the weights that are trained are float32"""
    save_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_steps", "token_budget", "batches_per_step", "warmup_steps", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("decay_fraction", "ema_decay", "image_ratio"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1.")
        if self.max_skipped < 0 or self.weight_decay < 0:
            raise ValueError(f"max_skipped and weight_decay are {self.max_skipped} and {self.weight_decay}; they must be 0 or more.")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, linear decay."""
        decay_steps = max(1, round(self.num_steps * self.decay_fraction))
        remaining = min(1.0, (self.num_steps - step) / decay_steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * max(0.01, remaining)


@dataclass(frozen=True, kw_only=True)
class TransformerTraining(Training):
    """All weights are trained. The sizes are for a model from nothing, and are the embedded miniature's."""

    start: Path | None = None
    """weights to start from: a root in the official layout, or a transformer file; none: start from nothing"""
    distill: bool = False
    """give a copy of the model a guidance embedding, and teach it what the model does with classifier-free guidance"""
    distill_lowest: float = 1.0
    """the guidance scale is drawn evenly between this and distill_highest"""
    distill_highest: float = 8.0
    hidden_size: int = 256
    num_heads: int = 4
    num_double_blocks: int = 2
    num_single_blocks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill and self.start is None:
            raise ValueError("Guidance is distilled from a trained model; name its weights with --start.")
        if not 0 <= self.distill_lowest <= self.distill_highest:
            raise ValueError(f"distill_lowest is {self.distill_lowest}; it must be between 0 and distill_highest, {self.distill_highest}.")

    @property
    def guidance_range(self) -> tuple[float, float]:
        return (self.distill_lowest, self.distill_highest) if self.distill else super().guidance_range


@dataclass(frozen=True, kw_only=True)
class LoraTraining(Training):
    """Adapters beside frozen weights are trained."""

    start: Path = field(default_factory=lambda: weights.find_or_embedded(None).root)
    """weights to adapt: a root in the official layout, or a transformer file (default: ./ckpts, or else the embedded miniature)"""
    rank: int = 32
    alpha: float | None = None
    """adapters count alpha / rank (default: the rank, so that they count 1)"""
    layers: str | None = None
    """a regular expression for the names of the layers to adapt; none: attention and MLP of all blocks"""
    fp8: bool = False
    """keep the frozen blocks in 8 bits"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            try:
                re.compile(self.layers)
            except re.error as error:
                raise ValueError(
                    f"layers is {self.layers!r}, which is no regular expression ({error}); 'attn|mlp' would be one."
                ) from error
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; it must be 1 or more.")
        if self.alpha is None:
            object.__setattr__(self, "alpha", float(self.rank))
        assert self.alpha is not None
        if self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}; it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class TrainingRuntime(Validation):
    """How to train and what to show of it. May change whenever a run is started again."""

    device: str = "auto"
    """auto (CUDA if there is one, else cpu), cpu or cuda; under torchrun each process takes a GPU of its own"""
    checkpoint_activations: bool = False
    """compute each block twice instead of keeping what is inside: far less memory, a third more work"""
    swap_blocks: bool = False
    """keep the frozen blocks of a LoRA's model in host memory, and on the GPU only while they work; needs checkpoint_activations"""
    sequence_parallel: int = 1
    """ranks that share the tokens of each sample"""
    checkpoint_seconds: float = 60.0
    """between checkpoints; more where saving one would take more than a tenth of that"""
    save_every: int | None = None
    """steps between checkpoints, instead of a time"""
    keep_checkpoints: int = 2
    """how many of the newest are kept"""
    wandb_project: str | None = None
    """send the metrics to this Weights & Biases project, too"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if Runtime(device=self.device).device == "mps":
            raise ValueError("device is 'mps', on which trainings do not run; it must be auto, cpu or cuda.")
        if self.swap_blocks and not self.checkpoint_activations:
            raise ValueError("swap_blocks needs checkpoint_activations: activations that are kept would keep the blocks' weights, too.")
        if self.sequence_parallel < 1:
            raise ValueError(f"sequence_parallel is {self.sequence_parallel}; it must be 1 or more.")
        if self.keep_checkpoints < 1 or self.checkpoint_seconds < 0 or (self.save_every is not None and self.save_every < 1):
            raise ValueError("keep_checkpoints and save_every must be 1 or more, and checkpoint_seconds 0 or more.")
