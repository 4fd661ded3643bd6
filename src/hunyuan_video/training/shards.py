"""Writes the shards of a latent cache (see `dataset`), so that a preparation killed at any moment continues where it was.

A shard appears whole or not at all, and is never written again while it is whole. `manifest.json`, replaced after each, says of what items
it was made and what each of them gave, and its size, hash and counts: a continued preparation makes what no whole shard holds. Of an item
that is no longer listed, the samples stay in their shard; they are "gone", which the counts leave out and training passes over.

    {"shards": {name: {"items": {digest: ["17x64x64", …] or a reason}, "sha256": …, "bytes": n, "samples": n in the file,
                       "buckets": {"17x64x64": n}, "skipped": {reason: n}, "gone": [numbers of samples], if there are any}},
     "empty": {"sha256": …, "bytes": n}, "missing": shards still to make, "samples": n, "buckets": {…}, "skipped": {…}}

Where items never come or go, as in the rendered world, "items" is one digest of all of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from hunyuan_video.files import replacing, sha256
from hunyuan_video.models.text import Kind, TextEncoder
from hunyuan_video.models.vision import STRIDES, SeeingTextEncoder
from hunyuan_video.training.dataset import EMPTY, HEADER, MANIFEST, Bucket, text_name

TEXT_BATCH = 32
KINDS: tuple[Kind, ...] = ("video", "image")
BLACK = Image.new("RGB", (64, 64))  # what is shown beside the empty caption, as it is beside a negative prompt

Entry = dict[str, Any]  # what the manifest says of one file
Skipped = dict[str, list[str]]  # by reason, the names of sources that could not be used
Outcome = list[str] | str  # of one source: the sizes of the samples that it gave, or the reason why none


@dataclass(frozen=True)
class Sample:
    """One encoded clip and its words; its first frame, encoded alone and as it is, for weights that begin with a picture; and other words
    that say it as well."""

    latents: Float[Tensor, "C T H W"]
    caption: str
    opening: Float[Tensor, "C 1 H W"] | None = None
    picture: Image.Image | None = None
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return "image" if self.latents.shape[1] == 1 else "video"


def write_shard(path: Path, samples: Sequence[Sample], skipped: Skipped, text: TextEncoder) -> Entry:
    """Encode the captions and write a shard; returns its entry for the manifest."""
    tensors = {f"{i}.latents": _stored(sample.latents) for i, sample in enumerate(samples)}
    tensors |= {f"{i}.opening": _stored(sample.opening) for i, sample in enumerate(samples) if sample.opening is not None}
    for kind in KINDS:
        ours = [(i, sample) for i, sample in enumerate(samples) if sample.kind == kind]
        words = [(text_name(i, way), said, sample) for i, sample in ours for way, said in enumerate((sample.caption, *sample.others))]
        for start in range(0, len(words), TEXT_BATCH):
            batch = words[start : start + TEXT_BATCH]
            tensors |= _encode_text(text, {name: said for name, said, _ in batch}, kind, [sample.picture or BLACK for *_, sample in batch])
    captions = [[sample.caption, *sample.others] if sample.others else sample.caption for sample in samples]
    header = json.dumps({"captions": captions, "skipped": skipped})
    entry = _write(path, tensors, header)
    buckets = Counter(str(Bucket.of_latents(*sample.latents.shape[1:])) for sample in samples)
    counts = {reason: len(names) for reason, names in sorted(skipped.items())}
    return entry | {"samples": len(samples), "buckets": dict(sorted(buckets.items())), "skipped": counts}


def _encode_text(text: TextEncoder, captions: dict[str, str], kind: Kind, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
    """By the captions' names; with their pictures where the language model sees these."""
    words = list(captions.values())
    features = text.encode_seeing(words, pictures) if isinstance(text, SeeingTextEncoder) else text.encode(words, kind)
    tensors = {}
    for name, states, mask, pooled in zip(captions, features.states, features.mask, features.pooled, strict=True):
        tensors |= {f"{name}.states": _stored(states[mask]), f"{name}.pooled": _stored(pooled)}
    return tensors


def _stored(tensor: Tensor) -> Tensor:
    stored = tensor.to("cpu", torch.float16, copy=True).contiguous()
    if not stored.isfinite().all():
        raise ValueError("Encoding gave values that are not finite; encode with --dtype bfloat16 or float32, in another folder.")
    return stored


def _write(path: Path, tensors: dict[str, Tensor], header: str) -> Entry:
    with replacing(path) as (temporary, _):
        save_file(tensors, temporary, {HEADER: header})
        return {"sha256": sha256(temporary), "bytes": temporary.stat().st_size}


def recorded(folder: Path) -> set[str]:
    """The items, by their digests, of which a cache says that it holds what they gave; its shards are not looked at."""
    path = folder / MANIFEST
    stored: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))["shards"] if path.exists() else {}
    return {digest for entry in stored.values() for digest in entry["items"]}


def _counted(entry: Entry, listed: Container[str]) -> Entry:
    """The entry of a shard of which only those items count that are `listed`."""
    outcomes: dict[str, Outcome] = entry["items"]
    samples = [(digest, size) for digest, outcome in outcomes.items() if not isinstance(outcome, str) for size in outcome]
    buckets = Counter(size for digest, size in samples if digest in listed)
    skipped = Counter(outcome for digest, outcome in outcomes.items() if isinstance(outcome, str) and digest in listed)
    gone = [number for number, (digest, _) in enumerate(samples) if digest not in listed]
    counted = entry | {"buckets": dict(sorted(buckets.items())), "skipped": dict(sorted(skipped.items())), "gone": gone}
    return counted if gone else {key: value for key, value in counted.items() if key != "gone"}  # as when it was made


class Manifest:
    """The record of a cache folder's shards: `shards` has the entries of those that are whole, by their numbers."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._missing: set[int] = set()
        path = folder / MANIFEST
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"shards": {}}
        empty = stored.get("empty", {})
        self.empty: Entry = empty if self._is_whole(folder / EMPTY, empty) else {}
        self.shards: dict[int, Entry] = {}
        for name, entry in tqdm(sorted(stored["shards"].items()), desc="checking", unit="shard", leave=False, disable=None):
            if self._is_whole(folder / name, entry):
                self.shards[int(name.removeprefix("shard-").removesuffix(".safetensors"))] = entry

    def path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What each item gave, by its digest, whether it is listed or not."""
        return {digest: outcome for entry in self.shards.values() for digest, outcome in entry["items"].items()}

    def count_only(self, listed: Container[str]) -> None:
        """Let only the items count that are `listed`, again or no longer."""
        self.shards = {index: _counted(entry, listed) for index, entry in self.shards.items()}

    def begin(self, missing: Iterable[int]) -> None:
        """Say which shards are still to be made."""
        self._missing = set(missing)
        self.shards = {index: entry for index, entry in self.shards.items() if index not in self._missing}
        self.save()

    def add(self, index: int, items: str | dict[str, Outcome], entry: Entry) -> None:
        """A shard that has been made, of these items."""
        self.shards[index] = {"items": items, **entry}
        self._missing.discard(index)
        self.save()

    def remove(self, index: int) -> None:
        """Delete a shard. If the process ends before the manifest is saved, the shard is found to be missing."""
        self.path(index).unlink()
        del self.shards[index]

    def add_empty(self, text: TextEncoder) -> None:
        """Write the empty caption, of a language model that sees nothing under both templates; and how weights are told of a picture for
        which the language model sees it."""
        tensors, header = dict[str, Tensor](), dict[str, str]()
        for kind in KINDS[:1] if isinstance(text, SeeingTextEncoder) else KINDS:
            tensors |= _encode_text(text, {kind: ""}, kind, [BLACK])
        if isinstance(text, SeeingTextEncoder):
            header["told"] = next(told for told, stride in STRIDES.items() if stride == text.stride)
        self.empty = _write(self.folder / EMPTY, tensors, json.dumps(header))
        self.save()

    @property
    def buckets(self) -> Counter[str]:
        return self._total("buckets")

    @property
    def skipped(self) -> Counter[str]:
        return self._total("skipped")

    def _total(self, key: str) -> Counter[str]:
        return sum((Counter(entry[key]) for entry in self.shards.values()), Counter())

    def save(self) -> None:
        values = {
            "shards": {self.path(index).name: entry for index, entry in sorted(self.shards.items())},
            "empty": self.empty,
            "missing": len(self._missing),
            "samples": self.buckets.total(),
            "buckets": dict(sorted(self.buckets.items())),
            "skipped": dict(sorted(self.skipped.items())),
        }
        with replacing(self.folder / MANIFEST) as (temporary, _):
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def _is_whole(path: Path, entry: Entry) -> bool:
        return path.exists() and path.stat().st_size == entry.get("bytes") and sha256(path) == entry["sha256"]
