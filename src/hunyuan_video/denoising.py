"""The steps of one video, from noise to finished latents: what its course is, said before the first, and the loop.

Letters: C channels, T H W latent frames, height, width, t h w of a smaller grid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video import progressive, windows
from hunyuan_video.beginning import Beginning, OnGrid
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.branches import guidance_on_halves
from hunyuan_video.distributed.sequence import parts_of
from hunyuan_video.distributed.world import World
from hunyuan_video.models.rope import riflex
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.models.transformer import Condition, HunyuanVideoTransformer
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.sampling import (
    SOLVERS,
    Velocity,
    classifier_free_guidance,
    estimate,
    initial_noise,
    official_noise,
    rest_of,
    sigmas_of,
)
from hunyuan_video.transforms.ahead import ahead
from hunyuan_video.transforms.offload import on_device
from hunyuan_video.transforms.sparse import sparse_attention, sparse_between
from hunyuan_video.transforms.step_cache import CachedSteps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """What the steps of a video go through: noise levels from the first to 0, one more than there are steps; the grids of its stages; and
    windows in time, if it is seen through such."""

    options: FullSampling
    shape: tuple[int, ...]
    sigmas: list[float]
    stages: list[progressive.Stage]
    windows: windows.Windows | None = None

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1

    def seen(self, stage: progressive.Stage) -> tuple[int, ...]:
        """The shape of what the transformer sees at once."""
        return stage.shape if self.windows is None else (*stage.shape[:2], self.windows.size, *stage.shape[3:])


def course(options: FullSampling, runtime: Runtime, vae: VAEConfig, patch_size: tuple[int, int, int], *, held: bool = False) -> Course:
    """Of a video, some of whose frames may be `held`. These need all frames from the first step on, and so does a loop, a ring of frames
    after each of which comes the next one.

    Raises:
        ValueError: the runtime says that its first steps have fewer frames, but it needs all.
    """
    shape = vae.latent_shape(options.num_frames, options.height, options.width)
    if options.loop:
        shape = (*shape[:2], shape[2] - 1, *shape[3:])
    through = windows.of(shape[2], runtime.window, ring=options.loop)
    whole = held or through is not None
    if through is not None and (runtime.pipefusion_patches is not None or runtime.step_cache == "first-block"):
        remembering = "step_cache 'first-block'" if runtime.pipefusion_patches is None else "pipefusion_patches"
        seen = "loop" if options.loop else "window"
        raise ValueError(f"{remembering} remembers where tokens were a step ago, but with {seen} they move; leave out one of the two.")
    sigmas = sigmas_of(options) if options.strength is None else rest_of(sigmas_of(options), options.strength)
    stages = progressive.stages(shape, sigmas, runtime.for_whole() if whole else runtime, patch_size)
    if whole and stages[0].shape[2] != shape[2]:
        raise ValueError(
            f"progressive is {runtime.progressive!r}, whose first steps have fewer frames, but frames of this video have their places from "
            "the first step on; use 'space' or 'off'."
        )
    return Course(options, shape, sigmas, stages, through)


class Denoised(NamedTuple):
    """After a step: its number, what the next begins with, the finished latents as it sees them, and how many evaluations of the
    transformer were computed so far."""

    done: int
    latents: Float[Tensor, "1 C t h w"]
    estimate: Float[Tensor, "1 C T H W"]
    computed: int


@dataclass(frozen=True)
class Denoiser:
    """A finished transformer, and how and where it works."""

    model: HunyuanVideoTransformer
    runtime: Runtime
    device: torch.device
    world: World
    trained: int
    """frames of the longest videos that it was trained on"""

    def steps(
        self, features: TextFeatures, course: Course, begins: Beginning, done: int = 0, latents: Tensor | None = None
    ) -> Generator[Denoised, None, None]:
        """The steps after the `done` ones, which left `latents`, or from noise. What a step cache and a solver remember is of one stage's
        size."""
        options, sigmas, runtime = course.options, course.sigmas, self.runtime
        noise = noise_of(course, self.device)
        left = progressive.rest(course.stages, done)
        begin = begins.on(left[0], noise)
        if latents is None:
            start = begins.start(noise, options.stability, sigmas[0])
            latents = begin.held(left[0].scale(sigmas[0]) * progressive.cut(start, left[0].shape), left[0].told(sigmas[0]))
        before = latents = latents.to(self.device, torch.float32)
        caches: list[CachedSteps] = []
        with self._conditions(features, course, begins) as condition:
            for stage, following in zip(left, [*left[1:], None], strict=True):
                told = [stage.told(sigma) for sigma in sigmas[done : stage.stop + 1]]
                cached = CachedSteps(
                    runtime.step_cache or "off", runtime.cache_threshold or 0.0, stage.stop - stage.start, self.world.total
                )
                caches.append(cached)
                with cached.inside(self.model), self._sparsely(course, stage, begin.clean) as sparsely:
                    velocity = sparsely(self._velocity(course, begin, stage, condition, cached))
                    solved = SOLVERS[options.solver](velocity, latents, told)
                    for (sigma, next_sigma), latents in zip(pairwise(told), solved, strict=True):
                        done += 1
                        check_finite(latents, done, course.num_steps)
                        near = progressive.full_size(estimate(before, latents, sigma, next_sigma), stage, course.shape)
                        before = latents
                        if done == stage.stop and following is not None:
                            moved = progressive.move_up(latents, stage, following, sigmas[done], noise)
                            begin = begins.on(following, noise)
                            before = latents = begin.held(moved, following.told(sigmas[done]))
                        yield Denoised(done, latents, near, sum(each.computed for each in caches))
        if runtime.step_cache != "off":
            asked, computed = (sum(getattr(each, name) for each in caches) for name in ("asked", "computed"))
            log.info("Of %d evaluations of the transformer %d were computed.", asked, computed)

    def _sparsely(
        self, course: Course, stage: progressive.Stage, clean_frames: tuple[int, ...]
    ) -> AbstractContextManager[Callable[[Velocity], Velocity]]:
        """For the steps of one stage, which is one grid of tokens."""
        density, pattern, sequence = self.runtime.attention_density, self.runtime.sparse_pattern, self.world.sequence
        if density == 1:
            return nullcontext(lambda velocity: velocity)
        low, high = map(stage.told, sparse_between(course.sigmas))
        ranks = 1 if sequence is None else sequence.size
        grid = self.model.config.grid(course.seen(stage))
        return sparse_attention(self.model, grid, density, pattern, (low, high), partial(parts_of, ranks=ranks), clean_frames)

    @contextmanager
    def _conditions(self, features: TextFeatures, course: Course, begins: Beginning) -> Iterator[Callable[[int], Condition]]:
        """What the model needs to know of a branch of guidance: the text, and the negative one after it, once for the video and all its
        noise levels."""
        levels = {stage.told(sigma) for stage in course.stages for sigma in course.sigmas[stage.start : stage.stop + 1]} - {0.0}
        # The scale is rounded to the model's dtype before it is multiplied, as in training: in bfloat16, 6.0 becomes 6016.
        dtype, scale = features.states.dtype, course.options.guidance
        guidance = None if scale is None else torch.full((1,), scale, device=self.device, dtype=dtype) * 1000
        ts = [self._t(sigma) for sigma in sorted(levels)]
        with ahead(self.model, ts, begins.clean, lambda module: on_device(module, self.device)) as prepare:
            yield cache(
                lambda row: prepare(row, features.states[row, None], features.mask[row, None], features.pooled[row, None], guidance)
            )

    def _t(self, sigma: float) -> Float[Tensor, " 1"]:
        """A noise level as the model knows it: float32, as in the official scheduler."""
        return torch.full((1,), sigma, device=self.device) * 1000

    def _velocity(
        self, course: Course, begin: OnGrid, stage: progressive.Stage, condition: Callable[[int], Condition], cached: CachedSteps
    ) -> Velocity:
        """The model as a function of a stage's latents and noise level. Each branch leaves out what the cache says."""
        model, seen = self.model, course.seen(stage)
        full, time = (*course.shape[:2], seen[2] if course.windows else course.shape[2], *course.shape[3:]), None
        if course.options.positions == "riflex" and course.windows is None:
            time = riflex(model.config.rope_dims[0], model.config.rope_theta, course.options.num_frames, self.trained)
        rope = progressive.rope(model, seen, full, self.device, time)

        def at_once(x: Tensor, sigma: float, known: Condition, clean_frames: tuple[int, ...]) -> Tensor:
            told = x if begin.beside is None else torch.cat([x, begin.beside], dim=1)
            return model(told, self._t(sigma), known, clean_frames, rope)

        def through_windows(x: Tensor, sigma: float, known: Condition) -> Tensor:
            assert course.windows is not None
            turn = turns[sigma]
            return course.windows.whole(lambda part, window: at_once(part, sigma, known, windows.within(begin.clean, window)), x, turn)

        turns = {stage.told(sigma): number for number, sigma in enumerate(course.sigmas)}

        def branch(row: int) -> Velocity:
            known = condition(row)

            def velocity(x: Tensor, sigma: float) -> Tensor:
                said = at_once(x, sigma, known, begin.clean) if course.windows is None else through_windows(x, sigma, known)
                return begin.moving(said)

            return cached.of_branch(velocity)

        scale = course.options.cfg_scale
        if scale == 1:
            return branch(0)
        if self.world.across is not None:
            return guidance_on_halves(branch, scale, self.world.across)
        return classifier_free_guidance(branch(0), branch(1), scale)


def noise_of(course: Course, device: torch.device) -> Tensor:
    """Of a seed, at full size."""
    options = course.options
    if options.noise == "official":
        return official_noise(course.shape, options.seed, device)
    return initial_noise(course.shape, options.seed).to(device)


def check_finite(latents: Tensor, step: int, total: int) -> None:
    """Here, and not hours later, when they cannot be decoded."""
    if not latents.isfinite().all():
        raise ValueError(
            f"The latents hold NaN or infinity after step {step} of {total}: some number was too large for its precision, or the weights "
            "are damaged; try --dtype bfloat16 or float32, --text-dtype float32, --attention sdpa, no --lora, or a lower --cfg-scale."
        )
