"""What a video begins with, and how a transformer is told: a value that the loop over steps passes on, so that no model knows of pictures.

text            nothing is given: latents are noise, and that is all
first_frame     given latent frames are without noise at every step, and their tokens are modulated as such ("token replace")
latent_concat   every frame is noise; beside it, on channels of their own, stand a picture's latents in the first frame and a mask of it

Of the frames that are given, weights were trained to be told of some; these are clean. The others take the training-free way: at every step
they are what is given, with their own noise at that step's level, so that the model sees them as noisy as all else, and goes where they
lead. Their velocity is known, noise minus data, whatever the model says.

A clip that is made anew is no frame that is held: it is where the noise starts, at a lower level.

Letters: B batch, C channels, T H W latent frames, height, width, t h w of a smaller grid, f given frames.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hunyuan_video import progressive
from hunyuan_video.config import Conditioning, Given, Stability
from hunyuan_video.models.transformer import TransformerConfig

TRACE = 0.001  # of the picture in the noise that a stable video starts from


def how_told(config: TransformerConfig) -> Conditioning:
    """How a transformer of these sizes would be told of a picture."""
    return "latent_concat" if config.in_channels == 2 * config.out_channels + 1 else "first_frame"


def told_clean(frames: Collection[int], num_frames: int, trained: Collection[Given]) -> tuple[int, ...]:
    """Those of the given latent frames that weights were trained to be told of: the first ones without a gap, or the first and the last
    one, or the first alone."""
    lead = next((number for number in range(num_frames) if number not in frames), num_frames)
    if "continuation" in trained and lead > 1:
        return tuple(range(lead))
    if "last" in trained and {0, num_frames - 1} <= {*frames}:
        return 0, num_frames - 1
    return (0,) if "first" in trained and lead > 0 else ()


@dataclass(frozen=True, eq=False)
class Beginning:
    """Latent frames that are given, where they stand, and how the transformer is told of them; without any, a text alone.

    `clean` are those of `frames` that hold no noise; `over` is a clip that is made anew."""

    how: Conditioning = "text"
    frames: tuple[int, ...] = ()
    latents: Float[Tensor, "B C f H W"] | None = None
    clean: tuple[int, ...] = ()
    over: Float[Tensor, "B C T H W"] | None = None

    @classmethod
    def of(
        cls,
        latents: Float[Tensor, "B C f H W"],
        config: TransformerConfig,
        frames: Sequence[int],
        num_frames: int,
        trained: Collection[Given],
    ) -> Beginning:
        """For a transformer, whose sizes say how it is told, of a video of so many latent frames; `trained` is what its weights know."""
        how = how_told(config)
        clean = told_clean(frames, num_frames, trained) if how == "first_frame" else ()
        return cls(how, tuple(frames), latents, clean)

    def start(self, noise: Float[Tensor, "B C T H W"], stability: Stability, sigma: float = 1.0) -> Float[Tensor, "B C T H W"]:
        """What a video starts from, at the noise level `sigma`, which is below 1 where there is a clip to start from."""
        if self.over is not None and sigma < 1:
            return (1 - sigma) * self.over.to(noise) + sigma * noise
        if self.latents is None or 0 not in self.frames or stability == "dynamic":
            return noise
        return (1 - TRACE) * noise + TRACE * self.latents[:, :, :1].to(noise)

    def on(self, stage: progressive.Stage, noise: Float[Tensor, "B C T H W"]) -> OnGrid:
        """On the grid of a stage of a video that started from `noise`, which is at full size."""
        if self.latents is None:
            return OnGrid()
        given = progressive.clean(self.latents.to(noise), stage)
        if self.how == "latent_concat":
            first = torch.cat([given, torch.ones_like(given[:, :1])], dim=1)
            return OnGrid(beside=F.pad(first, (0, 0, 0, 0, 0, stage.shape[2] - 1)))
        own = progressive.cut(noise[:, :, list(self.frames)], given.shape)
        is_clean = torch.tensor([frame in self.clean for frame in self.frames], device=noise.device).view(-1, 1, 1)
        return OnGrid(self.frames, self.clean, given, torch.where(is_clean, 0.0, own - given))


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A beginning on one grid: `given` latents of `frames`, their velocities (0 where they are clean), and what the transformer is given
    `beside` the latents, on channels of its own."""

    frames: tuple[int, ...] = ()
    clean: tuple[int, ...] = ()
    given: Float[Tensor, "B C f h w"] | None = None
    velocity: Float[Tensor, "B C f h w"] | None = None
    beside: Float[Tensor, "B more t h w"] | None = None

    def held(self, latents: Float[Tensor, "B C t h w"], sigma: float) -> Float[Tensor, "B C t h w"]:
        """Latents at a noise level, in which given frames are as they are given, or on their way to it."""
        if self.given is None or self.velocity is None:
            return latents
        return self._put(latents, self.given + sigma * self.velocity)

    def moving(self, velocity: Float[Tensor, "B C t h w"]) -> Float[Tensor, "B C t h w"]:
        """A velocity under which given frames stay, or come to what is given."""
        return velocity if self.velocity is None else self._put(velocity, self.velocity)

    def _put(self, x: Tensor, what: Tensor) -> Tensor:
        return x.index_copy(2, torch.tensor(self.frames, device=x.device), what.to(x))
