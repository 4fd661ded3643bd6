"""What a reconstruction is judged by. All losses are means over pixels or logits, so weights do not depend on the size of a clip.

Letters: B videos, C channels, F frames, H W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.models.vae import Posterior

LEAST_MSE = 1e-6  # 66 dB, beyond which nothing is gained


def reconstruction_loss(
    x: Float[Tensor, "B C F H W"],
    target: Float[Tensor, "B C F H W"],
    mse_weight: float,
    gradient_weight: float,
    log_mse_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """L1, and if weighted the squared error, the L1 of the spatial gradient, by which edges are worth more than their few pixels, and the
    logarithm of each clip's squared error, by which a decibel is worth the same in all."""
    error = x - target
    loss = error.abs().mean()
    if mse_weight:
        loss = loss + mse_weight * error.square().mean()
    if log_mse_weight:
        loss = loss + log_mse_weight * (error.square().mean(dim=(1, 2, 3, 4)) + LEAST_MSE).log().mean()
    if gradient_weight:
        loss = loss + gradient_weight * (error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean())
    return loss


def kl_divergence(posterior: Posterior, num_values: int) -> Float[Tensor, ""]:
    """From the posterior to the standard normal distribution: the sum over all latents, divided by the number of *pixel* values.

    So it stands to a mean L1 as the sum stands to a summed L1, which is how latent diffusion (arXiv 2112.10752) weighs it with 1e-6.
    """
    mean, logvar = posterior.mean, posterior.logvar
    return (mean.square() + logvar.exp() - 1 - logvar).sum() / (2 * num_values)


def generator_loss(fake: Float[Tensor, "*patches"]) -> Float[Tensor, ""]:
    """Falls as the discriminator takes the reconstruction for real (positive logits)."""
    return -fake.mean()


def discriminator_loss(real: Float[Tensor, "*patches"], fake: Float[Tensor, "*patches"]) -> Float[Tensor, ""]:
    """Hinge: real patches should get logits above 1 and reconstructed ones below -1; beyond that nothing is gained."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def adaptive_weight(
    pixels: Float[Tensor, "B C F H W"],
    gradient: Float[Tensor, "B C F H W"],
    adversarial_gradient: Float[Tensor, "B C F H W"],
    last_layer: Float[Tensor, "C *kernel"],
) -> Float[Tensor, ""]:
    """By how much the adversarial loss must be scaled to pull at the decoder's last layer as hard as the others do (VQGAN, arXiv
    2012.09841). The gradients are those of the losses with respect to `pixels`."""
    others, adversarial = (
        torch.autograd.grad(pixels, last_layer, upstream, retain_graph=True)[0].float().norm()
        for upstream in (gradient, adversarial_gradient)
    )
    return (others / (adversarial + 1e-4)).clamp(max=1e4)
