"""The latent cache: clips encoded once, to latents and text states, so that training the transformer reads nothing else.

    cache/
      config.json                what was asked for and what encoded it
      shard-00000.safetensors    of clip i: "i.latents" [C, T, H, W], "i.states" [L, D], "i.pooled" [P], in float16; "i.1.states" and
                                 "i.1.pooled", "i.2.states" … of other texts that say it as well; the header holds
                                 {"captions": [of every clip], "skipped": {reason: [source names]}}
      empty.safetensors          the empty caption: "video.states", "video.pooled", "image.states", "image.pooled"; the header holds
                                 {"told": how the weights are told of a picture}, if they begin every video with one
      manifest.json              sizes, hashes and counts of all shards (see `shards`)
      report.md                  the counts as tables

With each of its texts a clip is a sample. Latents are scaled as the transformer knows them. A sample of one frame is an image, and its text
states come from the image template. For weights that begin every video with a picture there are no images; the states are those of the
caption beside the clip's first frame, of which "i.opening" [C, 1, H, W] are the latents, encoded alone, as pictures are; and those of the
empty caption beside a black picture.

Letters: B samples, C channels, T latent frames, H W latent height and width, L text tokens, D P widths of the text states and of the
pooled vector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from math import floor, log
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hunyuan_video.config import SIZE_MULTIPLE, Conditioning
from hunyuan_video.files import sha256
from hunyuan_video.models.text import MAX_TEXT_TOKENS, TextFeatures
from hunyuan_video.training.run import random_generator

T = TypeVar("T")

MANIFEST = "manifest.json"
EMPTY = "empty.safetensors"
HEADER = "shard"  # one entry: safetensors writes several in random order
HOW_TO_MAKE = "`hunyuan-video data prepare` (your own videos) or `hunyuan-video train cache` (the rendered world)"
SAME_ASPECT = 0.05  # shapes whose log(width / height) differ by less are alike: 720x1280 and 544x960 are both 16:9


class Bucket(NamedTuple):
    """The size of a clip in pixels; every sample of a batch has the same."""

    num_frames: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """Reads "33x128x128": frames, height, width. Raises ValueError for what the model cannot make."""
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
        bucket = cls(*map(int, match.groups())) if match else cls(0, 0, 0)
        if bucket.num_frames % 4 != 1 or min(bucket) < 1 or bucket.height % SIZE_MULTIPLE or bucket.width % SIZE_MULTIPLE:
            raise ValueError(
                f"The bucket {text!r} is not FRAMESxHEIGHTxWIDTH with 4n + 1 frames (1 for images) and a height and width that are "
                f"multiples of {SIZE_MULTIPLE}; give one such as 33x128x128."
            )
        return bucket

    @classmethod
    def of_latents(cls, num_frames: int, height: int, width: int) -> Bucket:
        """From the sizes T, H, W of latents."""
        return cls(4 * (num_frames - 1) + 1, 8 * height, 8 * width)

    @property
    def tokens(self) -> int:
        """How many tokens the transformer makes of it."""
        return ((self.num_frames - 1) // 4 + 1) * (self.height // 16) * (self.width // 16)

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"


def nearest(buckets: Sequence[Bucket], num_frames: int, height: int, width: int) -> Bucket | None:
    """The bucket for a source of this many frames and pixels, or None if it is too short for all of them.

    First the aspect ratio decides, then the size (the largest that needs no enlarging, else the smallest), then the duration (the
    longest that the source fills). One frame is an image: it goes into buckets of one frame only, and videos never do.
    """
    possible = [bucket for bucket in buckets if bucket.num_frames <= num_frames and (bucket.num_frames == 1) == (num_frames == 1)]
    if not possible:
        return None

    def distance(bucket: Bucket) -> float:
        return abs(log(bucket.width / bucket.height) - log(width / height))

    def preference(bucket: Bucket) -> tuple[bool, int, int, float]:
        fits, area = bucket.height <= height and bucket.width <= width, bucket.height * bucket.width
        return fits, area if fits else -area, bucket.num_frames, -distance(bucket)

    closest = min(map(distance, possible))
    return max((bucket for bucket in possible if distance(bucket) <= closest + SAME_ASPECT), key=preference)


class Batch(NamedTuple):
    """Samples of one bucket in float32, with their captions and with the empty one of their kind; and latents of the pictures that they
    begin with, where the weights see these."""

    latents: Float[Tensor, "B C T H W"]
    captions: TextFeatures
    empty: TextFeatures
    openings: Float[Tensor, "B C 1 H W"] | None = None


class LatentCache:
    """A finished cache. Only its index is in memory; samples are read from the shards when they are asked for.

    Raises:
        FileNotFoundError: there is no cache in the folder.
        ValueError: it is unfinished, or a shard has not the size it was written with.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise FileNotFoundError(f"There is no latent cache in {folder}; make one with {HOW_TO_MAKE}.")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.digest = sha256(folder / MANIFEST)  # of all shards, whose own are in the manifest
        damaged = [name for name, entry in manifest["shards"].items() if _size(folder / name) != entry["bytes"]]
        if damaged or manifest.get("missing", 0):
            state = f"{damaged[0]} is gone or damaged" if damaged else f"{manifest['missing']} of its shards are still missing"
            raise ValueError(f"The latent cache in {folder} is incomplete ({state}); give {HOW_TO_MAKE} with its settings again.")
        self._shards = [safe_open(folder / name, framework="pt") for name in sorted(manifest["shards"])]
        self._samples: list[tuple[int, int, int]] = []  # shard, clip in the shard, and which of its texts
        self.buckets: dict[Bucket, list[int]] = {}
        self.text_lengths: list[int] = []  # tokens of each sample's caption
        for shard, (_, entry) in enumerate(sorted(manifest["shards"].items())):
            gone, held = set(entry.get("gone", ())), set(self._shards[shard].keys())
            for i in (i for i in range(entry["samples"]) if i not in gone):
                _, *size = self._shards[shard].get_slice(f"{i}.latents").get_shape()
                way = 0
                while (states := f"{text_name(i, way)}.states") in held:
                    self.buckets.setdefault(Bucket.of_latents(*size), []).append(len(self._samples))
                    self.text_lengths.append(self._shards[shard].get_slice(states).get_shape()[0])
                    self._samples.append((shard, i, way))
                    way += 1
        if not self._samples:
            raise ValueError(f"The latent cache in {folder} holds no samples; its report.md says why.")
        self._empty = {name: tensor.float() for name, tensor in load_file(folder / EMPTY).items()}
        with safe_open(folder / EMPTY, framework="pt") as empty:
            header = json.loads((empty.metadata() or {}).get(HEADER, "{}"))
        self.sees = "told" in header  # whether it is for weights that begin every video with a picture
        self.told: Conditioning = header.get("told", "first_frame")  # of frames that are given
        self.latent_channels = int(self._tensor(0, "latents").shape[0])
        self.text_dim = int(self._empty["video.states"].shape[1])
        self.pooled_dim = int(self._empty["video.pooled"].shape[0])

    def __len__(self) -> int:
        return len(self._samples)

    def text_tokens(self, bucket: Bucket) -> int:
        """Of the longest text of a bucket's samples, or the empty one."""
        empty = len(self._empty["image.states" if bucket.num_frames == 1 else "video.states"])
        return max(empty, *(self.text_lengths[number] for number in self.buckets[bucket]))

    def _tensor(self, number: int, name: Literal["latents", "opening", "states", "pooled"]) -> Tensor:
        shard, i, way = self._samples[number]
        of = text_name(i, way) if name in ("states", "pooled") else i
        return self._shards[shard].get_tensor(f"{of}.{name}").float()

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Latents and text of these samples, which must be of one bucket."""
        latents = torch.stack([self._tensor(number, "latents") for number in numbers])
        states = [self._tensor(number, "states") for number in numbers]
        lengths = torch.tensor([len(state) for state in states])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        pooled = torch.stack([self._tensor(number, "pooled") for number in numbers])
        openings = torch.stack([self._tensor(number, "opening") for number in numbers]) if self.sees else None
        captions = TextFeatures(pad_sequence(states, batch_first=True), mask, pooled)
        return Batch(latents, captions, self._empty_caption(latents), openings)

    def _empty_caption(self, latents: Float[Tensor, "B C T H W"]) -> TextFeatures:
        """That of the kind of these latents, for each of them."""
        kind = "image" if latents.shape[2] == 1 else "video"
        states, pooled, size = self._empty[f"{kind}.states"], self._empty[f"{kind}.pooled"], len(latents)
        return TextFeatures(states.expand(size, -1, -1), torch.ones(size, len(states), dtype=torch.bool), pooled.expand(size, -1))


class PlannedCache:
    """What is known of a cache that is still to be made: samples by size, whose captions may be as long as is read of any."""

    def __init__(self, samples: Mapping[Bucket, int], longest: int = MAX_TEXT_TOKENS):
        numbers = iter(range(sum(samples.values())))
        self.buckets = {bucket: list(islice(numbers, count)) for bucket, count in samples.items()}
        self.text_lengths = [longest] * sum(samples.values())
        self._longest = longest

    def text_tokens(self, _bucket: Bucket) -> int:
        return self._longest


AnyCache = LatentCache | PlannedCache  # for what asks for sizes and lengths only: a schedule, a plan of the memory


def text_name(clip: int, way: int) -> str:
    """How tensors are called of the first, the second … text that says a clip."""
    return f"{clip}.{way}" if way else str(clip)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


class Schedule:
    """Which samples a step sees: a function of the step alone, so that a run can continue anywhere.

    In an epoch every sample comes once, in batches of one bucket, shuffled anew; samples of a bucket are spread evenly over as few
    batches as the token budget allows, as many of them as possible of one text length each (`text_lengths` has every sample's), for those
    need no mask. With an `image_ratio` r, micro-batch n is one of images where n r passes an integer, and videos and images have epochs
    of their own; without, batches come as the samples are.
    """

    def __init__(
        self,
        buckets: Mapping[Bucket, Sequence[int]],
        text_lengths: Sequence[int],
        token_budget: int,
        batches_per_step: int,
        image_ratio: float | None,
        seed: int,
    ):
        if token_budget < 1 or batches_per_step < 1:
            raise ValueError(f"token_budget is {token_budget} and batches_per_step {batches_per_step}; both must be 1 or more.")
        if image_ratio is not None and not 0 <= image_ratio <= 1:
            raise ValueError(f"image_ratio is {image_ratio}; it must be between 0 and 1, or none to take images and videos as they come.")
        self.batches_per_step = batches_per_step
        # The decimal that was meant, not its nearest binary fraction: 0.1 n passes an integer at exactly every tenth n.
        self._ratio = Fraction(0) if image_ratio is None else Fraction(str(image_ratio))
        images = {bucket: numbers for bucket, numbers in buckets.items() if bucket.num_frames == 1}
        videos = {bucket: numbers for bucket, numbers in buckets.items() if bucket.num_frames > 1}
        if image_ratio is None:
            images, videos = {}, dict(buckets)
        for kind, share, found in (("images", self._ratio, images), ("videos", 1 - self._ratio, videos)):
            if share > 0 and not found:
                raise ValueError(f"image_ratio is {image_ratio}, but the cache holds no {kind}.")
        self._images = _Epochs(images, text_lengths, token_budget, seed, "images")
        self._videos = _Epochs(videos, text_lengths, token_budget, seed, "videos")

    @property
    def largest(self) -> dict[Bucket, int]:
        """How many samples the largest micro-batch of each bucket has, of those buckets that come at all."""
        return (self._images.largest if self._ratio > 0 else {}) | (self._videos.largest if self._ratio < 1 else {})

    def __call__(self, step: int) -> list[list[int]]:
        """The micro-batches of a step, each a list of sample numbers."""
        first = step * self.batches_per_step
        return [self._micro_batch(n) for n in range(first, first + self.batches_per_step)]

    def _micro_batch(self, n: int) -> list[int]:
        images_before = floor(n * self._ratio)
        if floor((n + 1) * self._ratio) > images_before:
            return self._images[images_before]
        return self._videos[n - images_before]


class _Epochs:
    """An endless sequence of batches over the samples of some buckets, epoch after epoch."""

    def __init__(self, buckets: Mapping[Bucket, Sequence[int]], text_lengths: Sequence[int], token_budget: int, seed: int, kind: str):
        # How many batches a bucket makes is the same in every epoch, so a batch's epoch follows from its number.
        counts = {bucket: -(-len(numbers) // max(1, token_budget // bucket.tokens)) for bucket, numbers in buckets.items()}
        self._length = sum(counts.values())
        self.largest = {bucket: -(-len(numbers) // counts[bucket]) for bucket, numbers in buckets.items()}

        @lru_cache(maxsize=2)
        def epoch(number: int) -> list[list[int]]:
            draw = random_generator(seed, "schedule", kind, number)
            batches: list[list[int]] = []
            for bucket in sorted(buckets):
                batches += _split(buckets[bucket], counts[bucket], text_lengths, draw)
            return _shuffled(batches, draw)

        self._epoch = epoch

    def __getitem__(self, number: int) -> list[int]:
        return self._epoch(number // self._length)[number % self._length]


def _split(numbers: Sequence[int], count: int, text_lengths: Sequence[int], draw: torch.Generator) -> list[list[int]]:
    """The samples in random order, in so many batches of even size. A length of which there are enough fills batches alone; what is left,
    less than a batch of each, is mixed."""
    alike: dict[int, list[int]] = {}
    for number in _shuffled(numbers, draw):
        alike.setdefault(text_lengths[number], []).append(number)
    sizes = [len(numbers) // count + (i < len(numbers) % count) for i in range(count)]  # the smallest last
    batches: list[list[int]] = []
    for samples in alike.values():
        while sizes and len(samples) >= sizes[-1]:
            size = sizes.pop()
            batches.append(samples[-size:])
            del samples[-size:]
    rest = iter(_shuffled([number for samples in alike.values() for number in samples], draw))
    return batches + [list(islice(rest, size)) for size in sizes]


def _shuffled(items: Sequence[T], draw: torch.Generator) -> list[T]:
    return [items[i] for i in torch.randperm(len(items), generator=draw).tolist()]
