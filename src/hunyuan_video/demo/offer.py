"""What the page offers for the weights that are there: sizes, lengths, and where its controls stand. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from hunyuan_video.config import SIZE_MULTIPLE, FullSampling
from hunyuan_video.weights import Weights

T = TypeVar("T")

FPS = 24
# Of the official page, width first, as it writes them.
OFFICIAL_SIZES = (
    (1280, 720), (720, 1280), (1104, 832), (832, 1104), (960, 960),
    (960, 544), (544, 960), (832, 624), (624, 832), (720, 720),
)  # fmt: skip
OFFICIAL_LENGTHS = (65, 129)


@dataclass(frozen=True)
class Offer:
    """`sizes` are width and height in pixels, `lengths` numbers of frames; those of `defaults` are among them."""

    name: str
    """of the weights, for people"""
    defaults: FullSampling
    sizes: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    embedded_guidance: bool
    image_to_video: bool
    needs_picture: bool = False

    @classmethod
    def of(cls, found: Weights) -> Offer:
        """Of weights, by what they say that they were made for."""
        own, sizes, lengths = found.sampling(), OFFICIAL_SIZES, OFFICIAL_LENGTHS
        if (trained := found.trained) is not None:
            smallest, largest, frames = trained
            sizes, lengths = sizes_between(smallest, largest), ((frames // 2 + 3) // 4 * 4 + 1, frames)
        return cls(
            name="the embedded miniature" if found.is_embedded else f"{found.root.resolve().name} ({found.transformer.name})",
            defaults=own,
            sizes=with_own(sizes, (own.width, own.height)),
            lengths=with_own(lengths, own.num_frames),
            embedded_guidance=own.guidance is not None,
            image_to_video=found.image_to_video,
            needs_picture=found.needs_picture,
        )


def sizes_between(smallest: int, largest: int) -> tuple[tuple[int, int], ...]:
    """Square, 4:3 and 16:9 ones, lying and upright, with sides from `smallest` to `largest` pixels."""
    short = [min(largest, max(smallest, -(-largest * share // SIZE_MULTIPLE) * SIZE_MULTIPLE)) for share in (3 / 4, 9 / 16)]
    squares = {(side, side) for side in (largest, int(short[0]), smallest)}
    oblong = [size for side in map(int, short) for size in ((largest, side), (side, largest))]
    return tuple(dict.fromkeys([(largest, largest), *oblong, *sorted(squares, reverse=True)]))


def size_name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def length_name(frames: int) -> str:
    """As the official page has it: 5s(129f), whole seconds that have begun and ended; below two of them, tenths."""
    seconds = frames / FPS
    return f"{int(seconds) if seconds >= 2 else round(seconds, 1):g}s({frames}f)"


def with_own(offered: tuple[T, ...], own: T) -> tuple[T, ...]:
    """What is offered, and if it is not among that, what there is besides."""
    return offered if own in offered else (own, *offered)
