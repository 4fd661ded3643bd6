"""Writes the shards of a latent cache (see `dataset`), so that a preparation killed at any moment continues where it was.

Every shard covers a fixed range of the source's items and appears whole or not at all. `manifest.json`, replaced after each, says of what
items a shard was made, and its size, hash and counts: a continued preparation makes again what is missing, damaged, or no longer of the
same items.

    {"shards": {name: {"items": digest, "sha256": …, "bytes": n, "samples": n, "buckets": {"17x64x64": n}, "skipped": {reason: n}}},
     "empty": {"sha256": …, "bytes": n}, "missing": shards still to make, "samples": n, "buckets": {…}, "skipped": {…}}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from hunyuan_video.files import replacing, sha256
from hunyuan_video.models.text import Kind, TextEncoder
from hunyuan_video.training.dataset import EMPTY, MANIFEST, Bucket

TEXT_BATCH = 32
HEADER = "shard"  # one entry: safetensors writes several in random order
KINDS: tuple[Kind, ...] = ("video", "image")

Entry = dict[str, Any]  # what the manifest says of one file
Skipped = dict[str, list[str]]  # by reason, the names of sources that could not be used


@dataclass(frozen=True)
class Sample:
    """One encoded clip and its words."""

    latents: Float[Tensor, "C T H W"]
    caption: str

    @property
    def kind(self) -> Kind:
        return "image" if self.latents.shape[1] == 1 else "video"


def write_shard(path: Path, samples: Sequence[Sample], skipped: Skipped, text: TextEncoder) -> Entry:
    """Encode the captions and write a shard; returns its entry for the manifest."""
    tensors = {f"{i}.latents": _stored(sample.latents) for i, sample in enumerate(samples)}
    for kind in KINDS:
        numbers = [i for i, sample in enumerate(samples) if sample.kind == kind]
        for start in range(0, len(numbers), TEXT_BATCH):
            batch = numbers[start : start + TEXT_BATCH]
            tensors |= _encode_text(text, [samples[i].caption for i in batch], kind, [str(i) for i in batch])
    header = json.dumps({"captions": [sample.caption for sample in samples], "skipped": skipped})
    entry = _write(path, tensors, header)
    buckets = Counter(str(Bucket.of_latents(*sample.latents.shape[1:])) for sample in samples)
    counts = {reason: len(names) for reason, names in sorted(skipped.items())}
    return entry | {"samples": len(samples), "buckets": dict(sorted(buckets.items())), "skipped": counts}


def read_skipped(path: Path) -> Skipped:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[HEADER])["skipped"]


def _encode_text(text: TextEncoder, captions: list[str], kind: Kind, names: Sequence[str]) -> dict[str, Tensor]:
    features = text.encode(captions, kind)
    tensors = {}
    for name, states, mask, pooled in zip(names, features.states, features.mask, features.pooled, strict=True):
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


def recorded(folder: Path) -> dict[int, str]:
    """Of what items the shards of a cache were made that may be there, by number; files are not looked at."""
    path = folder / MANIFEST
    stored: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))["shards"] if path.exists() else {}
    return {int(name.removeprefix("shard-").removesuffix(".safetensors")): entry.get("items", "") for name, entry in stored.items()}


class Manifest:
    """The record of a cache folder's shards. `digests` says, shard by shard, of what items the finished cache is made."""

    def __init__(self, folder: Path, digests: Sequence[str]):
        self.folder, self.digests = folder, digests
        path = folder / MANIFEST
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"shards": {}}
        empty = stored.get("empty", {})
        self.empty: Entry = empty if self._is_whole(folder / EMPTY, empty) else {}
        self.shards: dict[str, Entry] = {}
        for index, digest in enumerate(tqdm(digests, desc="checking", unit="shard", leave=False, disable=None)):
            entry = stored["shards"].get(self.path(index).name)
            if entry is not None and entry["items"] == digest and self._is_whole(self.path(index), entry):
                self.shards[self.path(index).name] = entry

    def path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"

    @property
    def surplus(self) -> list[Path]:
        """Shards that are there and that the finished cache will not have."""
        return sorted(set(self.folder.glob("shard-*.safetensors")) - {self.path(index) for index in range(len(self.digests))})

    def begin(self) -> list[int]:
        """The shards still to make. A `surplus` is removed: ask before."""
        for path in self.surplus:
            path.unlink()
        self.save()
        return self.missing()

    def discard(self) -> None:
        """Remove the shards, and what says that there are some."""
        for path in (*self.folder.glob("shard-*.safetensors"), self.folder / MANIFEST):
            path.unlink()

    def missing(self) -> list[int]:
        return [index for index in range(len(self.digests)) if self.path(index).name not in self.shards]

    def add(self, index: int, entry: Entry) -> None:
        self.shards[self.path(index).name] = {"items": self.digests[index], **entry}
        self.save()

    def add_empty(self, text: TextEncoder) -> None:
        """Write the empty caption under both templates."""
        tensors: dict[str, Tensor] = {}
        for kind in KINDS:
            tensors |= _encode_text(text, [""], kind, [kind])
        self.empty = _write(self.folder / EMPTY, tensors, "{}")
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
            "shards": dict(sorted(self.shards.items())),
            "empty": self.empty,
            "missing": len(self.missing()),
            "samples": self.buckets.total(),
            "buckets": dict(sorted(self.buckets.items())),
            "skipped": dict(sorted(self.skipped.items())),
        }
        with replacing(self.folder / MANIFEST) as (temporary, _):
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def _is_whole(path: Path, entry: Entry) -> bool:
        return path.exists() and path.stat().st_size == entry.get("bytes") and sha256(path) == entry["sha256"]
