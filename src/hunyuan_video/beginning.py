"""What a video begins with, and how a transformer is told: a value that the loop over steps passes on, so that no model knows of pictures.

text            nothing is given: latents are noise, and that is all
first_frame     given latent frames are without noise at every step, and their tokens are modulated as such ("token replace")
latent_concat   every frame is noise; beside it, on channels of their own, stand a picture's latents in the first frame and a mask of it

Letters: B batch, C channels, T H W latent frames, height, width, h w those of a smaller grid, f given frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hunyuan_video import progressive
from hunyuan_video.config import Conditioning, Stability
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.models.vae import VAEConfig

TRACE = 0.001  # of the picture in the noise that a stable video starts from


def how_told(config: TransformerConfig) -> Conditioning:
    """How a transformer of these sizes would be told of a picture."""
    return "latent_concat" if config.in_channels == 2 * config.out_channels + 1 else "first_frame"


@dataclass(frozen=True, eq=False)
class Beginning:
    """Latent frames that are given, where they stand, and how the transformer is told of them; without any, a text alone."""

    how: Conditioning = "text"
    frames: tuple[int, ...] = ()
    latents: Float[Tensor, "B C f H W"] | None = None

    @classmethod
    def of(cls, latents: Float[Tensor, "B C f H W"], config: TransformerConfig, frames: Sequence[int] = (0,)) -> Beginning:
        """For a transformer, whose sizes say how it is told."""
        return cls(how_told(config), tuple(frames), latents)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises a ValueError if what is given is not of a video of this shape [1, C, T, H, W], or is all of it."""
        batch, channels, num_frames, height, width = shape
        needed = (batch, channels, len(self.frames), height, width)
        if self.latents is not None and self.latents.shape != needed:
            raise ValueError(
                f"The latents of {len(self.frames)} given frames have shape {list(self.latents.shape)}; "
                f"those of a video of {list(shape)} have {list(needed)}."
            )
        if not set(self.frames) < set(range(num_frames)) or len(set(self.frames)) < len(self.frames):
            raise ValueError(f"The given latent frames are {list(self.frames)}; they must be some, each once, of 0 to {num_frames - 1}.")

    @property
    def clean_frames(self) -> tuple[int, ...]:
        """Latent frames that hold no noise."""
        return self.frames if self.how == "first_frame" else ()

    def unseen_frames(self, config: VAEConfig) -> int:
        """How many decoded frames at the start are the picture's, and no part of the video, as in the official code."""
        return config.time_compression_ratio if self.how == "latent_concat" else 0

    def start(self, noise: Float[Tensor, "1 C T H W"], stability: Stability) -> Float[Tensor, "1 C T H W"]:
        """The noise that a video starts from."""
        if self.latents is None or stability == "dynamic":
            return noise
        return (1 - TRACE) * noise + TRACE * self.latents[:, :, :1].to(noise)

    def held(self, latents: Float[Tensor, "B C T h w"], stage: progressive.Stage) -> Float[Tensor, "B C T h w"]:
        """Latents that a stage begins with, in which given frames are as they are given."""
        if self.latents is None or not self.clean_frames:
            return latents
        return latents.index_copy(2, self._places(latents), progressive.clean(self.latents, stage).to(latents))

    def beside(self, stage: progressive.Stage) -> Float[Tensor, "B more T h w"] | None:
        """What the transformer is given beside the latents of a stage, on channels of their own; None if there is nothing."""
        if self.latents is None or self.how != "latent_concat":
            return None
        small = progressive.clean(self.latents, stage)
        first = torch.cat([small, torch.ones_like(small[:, :1])], dim=1)
        return F.pad(first, (0, 0, 0, 0, 0, stage.shape[2] - 1))

    def moving(self, velocity: Float[Tensor, "1 C T h w"]) -> Float[Tensor, "1 C T h w"]:
        """A velocity under which given frames stay."""
        return velocity.index_fill(2, self._places(velocity), 0) if self.clean_frames else velocity

    def _places(self, x: Tensor) -> Tensor:
        return torch.tensor(self.clean_frames, device=x.device)
