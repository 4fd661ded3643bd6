"""LPIPS (arXiv 1801.03924): how different two pictures look, as the distance of their VGG16 features.

The weights are the user's own files: torchvision's VGG16 (`vgg16-397923af.pth`, whose names the layers here have) and, if given, the
weights of its channels that LPIPS fitted to human judgement (`vgg.pth` of its release 0.1). Without those all channels count alike.

Letters: B videos, F frames, H W height and width, N = B F pictures, C channels of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.checkpoint import fill, read_state_dict

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # output channels of the convolutions between poolings
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in [0, 1]


class PerceptualDistance(nn.Module):
    """Two videos in [-1, 1], of at least 16 x 16, to one number: 0 if they are equal. Gradients flow to the first one only."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for widths in STAGES:
            for width in widths:
                layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.channel_weights = nn.ParameterList([torch.ones(1, widths[-1], 1, 1) for widths in STAGES])

    def stages(self, x: Float[Tensor, "B 3 F H W"]) -> list[Float[Tensor, "N C h w"]]:
        """The features that end each stage, of length 1 along their channels."""
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        x = (rearrange(x, "B C F H W -> (B F) C H W") / 2 + 0.5 - mean) / std
        found = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
            x = layer(x)
        return [F.normalize(x, dim=1, eps=1e-10) for x in (*found, x)]

    def forward(self, x: Float[Tensor, "B 3 F H W"], target: Float[Tensor, "B 3 F H W"]) -> Float[Tensor, ""]:
        with torch.no_grad():
            expected = self.stages(target)
        pairs = zip(self.stages(x), expected, self.channel_weights, strict=True)
        return torch.stack([(weight * (a - b).square()).sum(dim=1).mean() for a, b, weight in pairs]).sum()


def load_perceptual(paths: Sequence[Path], device: torch.device) -> PerceptualDistance:
    """The distance with the weights in the user's files, frozen, in float32.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged, or not VGG16.
    """
    stored = {name: tensor for path in paths for name, tensor in read_state_dict(path).items()}
    state = {name: tensor for name, tensor in stored.items() if name.startswith("features.")}
    for stage, widths in enumerate(STAGES):
        state[f"channel_weights.{stage}"] = stored.get(f"lin{stage}.model.1.weight", torch.ones(1, widths[-1], 1, 1))
    with torch.device("meta"):
        model = PerceptualDistance()
    fill(model, state, paths[0], torch.float32, device)
    return model
