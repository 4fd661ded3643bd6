"""The VAE's opponent: a convolutional network that judges, patch by patch, whether a video is real or reconstructed.

PatchGAN (arXiv 1611.07004) in three dimensions: there is one logit for each patch of 54 x 54 pixels and 25 frames, so what is learned is
sharpness and smooth motion, not what a video shows. A single frame is judged by the same network.

Letters: B videos, F frames, H W height and width.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.vae_losses import discriminator_loss, generator_loss


class PatchDiscriminator(nn.Sequential):
    """Videos in [-1, 1] to logits [B, 1, ceil(F/4), H/8, W/8]; positive means real."""

    def __init__(self, width: int = 64) -> None:
        wider = 2 * width
        layers: list[nn.Module] = [*conv(3, width, (3, 4, 4), (1, 2, 2)), nn.LeakyReLU(0.2)]
        for kernel, stride in (((3, 4, 4), 2), ((3, 4, 4), 2), (3, 1)):
            layers += [*conv(width, wider, kernel, stride), nn.GroupNorm(8, wider), nn.LeakyReLU(0.2)]
            width, wider = wider, 2 * wider
        super().__init__(*layers, *conv(width, 1, 3, 1))


def conv(in_channels: int, out_channels: int, kernel: int | tuple[int, ...], stride: int | tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """A convolution in zeros one wide. It does not add them itself: padding two frames, PyTorch 2.13's bfloat16 kernel on CPUs computes
    wrong gradients, some of them infinite."""
    return nn.ZeroPad3d(1), nn.Conv3d(in_channels, out_channels, kernel, stride)  # pyright: ignore[reportArgumentType]


class Adversary:
    """A discriminator and its training, which computes in `dtype`, with float32 masters as the VAE's own."""

    def __init__(self, seed: int, learning_rate: float, device: torch.device, dtype: torch.dtype) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = PatchDiscriminator().to(device)
        self.learning_rate = learning_rate
        # Momentum would keep fighting what the VAE has long mended.
        self.weights = MasterWeights(model, betas=(0.5, 0.9), weight_decay=0.0, clip_norm=1.0, ema_decay=None)
        self.dtype, self.worker = dtype, copy.deepcopy(model).to(dtype)

    def loss(self, pixels: Float[Tensor, "B 3 F H W"]) -> Float[Tensor, ""]:
        """What the VAE should lower."""
        return generator_loss(self.worker(pixels.to(self.dtype)).float())

    def step(self, real: Float[Tensor, "B 3 F H W"], fake: Float[Tensor, "B 3 F H W"], step: int) -> Float[Tensor, ""]:
        """Learn to tell these apart; returns the loss."""
        loss = discriminator_loss(*(self.worker(x.detach().to(self.dtype)).float() for x in (real, fake)))
        loss.backward()
        self.weights.step(self.worker, step, self.learning_rate)
        return loss.detach()

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, to be saved or read into in place."""
        return {f"adversary.{name}": tensor for name, tensor in self.weights.state_dict().items()}
