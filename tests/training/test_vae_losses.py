"""What a reconstruction is judged by: each loss against its definition, and pulling in the right direction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as exact_kl

from hunyuan_video.models.vae import Posterior
from hunyuan_video.training.discriminator import Adversary, PatchDiscriminator
from hunyuan_video.training.perceptual import STAGES, PerceptualDistance, load_perceptual
from hunyuan_video.training.vae_losses import adaptive_weight, discriminator_loss, generator_loss, kl_divergence, reconstruction_loss

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def perceptual() -> PerceptualDistance:
    torch.manual_seed(0)
    return PerceptualDistance().requires_grad_(False)


@pytest.fixture(scope="module")
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(width=8)


def test_reconstruction_is_l1_and_what_is_added_to_it():
    x, target = random(1, 3, 2, 4, 4), random(1, 3, 2, 4, 4, seed=1)
    error = x - target
    assert reconstruction_loss(x, target, 0.0, 0.0) == error.abs().mean()
    torch.testing.assert_close(reconstruction_loss(x, target, 2.0, 0.0), error.abs().mean() + 2 * error.square().mean())
    assert reconstruction_loss(target + 1, target, 0.0, 5.0) == pytest.approx(1)  # another brightness, the same edges
    assert reconstruction_loss(x, target, 0.0, 1.0) > reconstruction_loss(x, target, 0.0, 0.0)


def test_a_decibel_is_worth_the_same_in_every_clip():
    target, error = torch.zeros(2, 3, 1, 4, 4), torch.cat([random(1, 3, 1, 4, 4), 0.01 * random(1, 3, 1, 4, 4, seed=1)])

    def loss(factors: list[float]) -> float:
        x = target + error * torch.tensor(factors).view(2, 1, 1, 1, 1)
        return (reconstruction_loss(x, target, 0.0, 0.0, 1.0) - reconstruction_loss(x, target, 0.0, 0.0)).item()

    assert loss([0.5, 1.0]) == pytest.approx(loss([1.0, 0.5]), abs=0.05)
    assert loss([0.5, 1.0]) < loss([1.0, 1.0]) - 0.6


def test_kl_is_the_exact_one_per_pixel_value():
    posterior = Posterior(random(2, 4, 1, 2, 2), random(2, 4, 1, 2, 2, seed=1))
    exact = exact_kl(Normal(posterior.mean, (posterior.logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(posterior, 1000), exact.sum() / 1000)


def test_perceptual_distance_of_equal_videos_is_zero(perceptual: PerceptualDistance):
    x = random(1, 3, 2, 16, 16)
    assert perceptual(x, x) == 0
    assert perceptual(x, x.roll(5, dims=4)) > 0


def test_perceptual_gradient_pulls_towards_the_target(perceptual: PerceptualDistance):
    target, x = random(1, 3, 1, 16, 16), random(1, 3, 1, 16, 16, seed=1).requires_grad_(True)
    before = perceptual(x, target)
    (gradient,) = torch.autograd.grad(before, x)
    assert perceptual(x.detach() - 0.1 * gradient / gradient.abs().max(), target) < before


def test_perceptual_distance_is_the_published_formula(perceptual: PerceptualDistance):
    x, target = random(1, 3, 1, 16, 16), random(1, 3, 1, 16, 16, seed=1)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    last = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}  # torchvision's numbers of these layers
    total = 0.0
    a, b = (((video[:, :, 0] + 1) / 2 - mean) / std for video in (x, target))
    for number, layer in enumerate(perceptual.features):
        a, b = layer(a), layer(b)
        if number in last.values():
            unit = [value / value.square().sum(1, keepdim=True).sqrt() for value in (a, b)]
            total += (unit[0] - unit[1]).square().sum(1).mean().item()
    assert perceptual(x, target).item() == pytest.approx(total, rel=1e-5)


def test_vgg_has_the_names_and_shapes_that_torchvision_stores(perceptual: PerceptualDistance):
    convolutions = {name: list(tensor.shape) for name, tensor in perceptual.state_dict().items() if name.endswith("features.28.weight")}
    assert convolutions == {"features.28.weight": [512, 512, 3, 3]}
    numbers = [int(name.split(".")[1]) for name in perceptual.features.state_dict(prefix="features.") if name.endswith("bias")]
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def test_perceptual_weights_load_from_the_published_files(perceptual: PerceptualDistance, tmp_path: Path):
    vgg = {name: tensor for name, tensor in perceptual.state_dict().items() if name.startswith("features.")}
    torch.save(vgg | {"classifier.6.bias": torch.zeros(1000)}, tmp_path / "vgg16-397923af.pth")
    fitted = {f"lin{i}.model.1.weight": torch.full((1, widths[-1], 1, 1), 0.5) for i, widths in enumerate(STAGES)}
    torch.save(fitted, tmp_path / "vgg.pth")
    x, target = random(1, 3, 1, 16, 16), random(1, 3, 1, 16, 16, seed=1)
    plain = load_perceptual([tmp_path / "vgg16-397923af.pth"], CPU)
    assert plain(x, target) == perceptual(x, target) and not any(p.requires_grad for p in plain.parameters())
    proper = load_perceptual([tmp_path / "vgg16-397923af.pth", tmp_path / "vgg.pth"], CPU)
    torch.testing.assert_close(proper(x, target), perceptual(x, target) / 2)
    with pytest.raises(ValueError, match=r"features.0.weight is missing"):
        load_perceptual([tmp_path / "vgg.pth"], CPU)


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_discriminator_judges_patches_of_videos_and_images(discriminator: PatchDiscriminator, frames: int):
    assert discriminator(random(1, 3, frames, 32, 48)).shape == (1, 1, (frames + 3) // 4, 4, 6)


def test_a_logit_sees_54_pixels_and_25_frames():
    model = PatchDiscriminator(width=8)
    for name, module in list(model.named_children()):
        if isinstance(module, torch.nn.GroupNorm):  # its statistics, faintly, join all patches
            model.set_submodule(name, torch.nn.Identity())
    x = random(1, 3, 41, 128, 128).requires_grad_(True)
    logits = model(x)
    logits[0, 0, logits.shape[2] // 2, 8, 8].backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    assert [int(seen.flatten(1).any(1).sum()), int(seen.any(0).any(0).sum()), int(seen.any(0).any(1).sum())] == [25, 54, 54]


def test_hinge_pushes_real_up_and_fake_down_until_they_are_apart():
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    discriminator_loss(real, fake).backward()
    assert real.grad is not None and fake.grad is not None and (real.grad < 0).all() and (fake.grad > 0).all()
    assert discriminator_loss(torch.full((3,), 1.5), torch.full((3,), -1.5)) == 0
    assert generator_loss(torch.ones(3)) < generator_loss(torch.zeros(3))


def test_the_adversary_learns_and_its_loss_pulls_towards_the_real_video():
    real, fake = random(1, 3, 5, 32, 32), torch.zeros(1, 3, 5, 32, 32)
    adversary = Adversary(seed=0, learning_rate=1e-3, device=CPU, dtype=torch.float32)
    losses = [adversary.step(real, fake, step).item() for step in range(12)]
    assert losses[-1] < losses[0] - 0.3
    x = fake.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(adversary.loss(x), x)
    moved = fake - 0.05 * gradient / gradient.abs().max()
    assert adversary.loss(moved) < adversary.loss(fake)
    assert adversary.loss(real) < adversary.loss(fake)
    assert all(p.grad is None for p in adversary.worker.parameters())  # judging the VAE must not train the judge


def test_adaptive_weight_makes_both_pulls_on_the_last_layer_equal():
    layer = random(3, 4).requires_grad_(True)
    pixels = (layer @ random(4, 16, seed=1)).view(1, 3, 1, 4, 4)
    gradient, pull = random(1, 3, 1, 4, 4, seed=2), 7 * random(1, 3, 1, 4, 4, seed=3)
    weight = adaptive_weight(pixels, gradient, pull, layer)
    (wanted,) = torch.autograd.grad(pixels, layer, gradient, retain_graph=True)
    (scaled,) = torch.autograd.grad(pixels, layer, weight * pull)
    torch.testing.assert_close(scaled.norm(), wanted.norm(), rtol=1e-4, atol=0.0)
