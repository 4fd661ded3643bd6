"""What weights that begin every video with a picture, such as the official image-to-video ones, ask of a training."""

from __future__ import annotations

from pathlib import Path

from hunyuan_video import weights
from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint.seeing import llava_config
from hunyuan_video.models.text import MAX_TEXT_TOKENS
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.training.dataset import LatentCache
from hunyuan_video.training.objectives import GIVEN, Objective


def sees(start: Path | None) -> bool:
    """Whether the language model of the weights at `start`, if it is a root, sees the picture."""
    return start is not None and start.is_dir() and weights.locate(start).sees


def longest_text(start: Path | None, sizes: TransformerConfig) -> int:
    """Tokens of the longest caption, and of the picture that is read with it, as a transformer of these sizes is given them."""
    if start is None or not sees(start):
        return MAX_TEXT_TOKENS
    return llava_config(weights.locate(start).text_encoder).text_tokens(how_told(sizes))


def released(sizes: TransformerConfig) -> TransformerConfig:
    """The 13B that is told of pictures as a transformer of these sizes is."""
    return TransformerConfig(in_channels=33) if how_told(sizes) == "latent_concat" else TransformerConfig()


def check_beginnings(config: Objective, start: Path | None, sizes: TransformerConfig, cache: LatentCache) -> None:
    """Raises a ValueError if a cache is for weights that are told of a picture otherwise, or clips are to begin otherwise than these do."""
    if (cache.told != how_told(sizes)) or (sees(start) and not cache.sees):
        made = {True: f"begin with pictures as {cache.told!r} has it", False: "begin with no pictures"}[cache.sees]
        raise ValueError(
            f"{start} is told of pictures by {how_told(sizes)!r}, but the clips in the cache {made}: make it with these weights "
            "(`hunyuan-video data prepare --weights`)."
        )
    if not cache.sees:
        return
    ways = GIVEN if cache.told == "first_frame" else GIVEN[:1]
    if (share := sum(getattr(config, name) for name in ways)) < 1 - 1e-9:
        raise ValueError(
            f"A share of {share:g} of the clips is to begin with a picture ({', '.join(ways)}), but these weights begin every video with "
            "one; give image_to_video 1 (--image-to-video 1)."
        )
