"""Makes a latent cache of captioned videos and images, and continues where it was interrupted.

All happens one after the other in one process; several machines can each prepare a part of a list into a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm
from tyro.conf import Positional

from hunyuan_video import markdown
from hunyuan_video.assembly import Models, assemble, dtype_of
from hunyuan_video.checkpoint import identity, load_vae, read_json, stays_in_file
from hunyuan_video.checkpoint.seeing import load_encoders
from hunyuan_video.config import DType, Runtime
from hunyuan_video.distributed.world import World, resolve_device
from hunyuan_video.files import replacing
from hunyuan_video.models.text import TextEncoder
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.pipeline import encode
from hunyuan_video.training import media
from hunyuan_video.training.captions import fields_of, texts_of
from hunyuan_video.training.dataset import MANIFEST, Bucket
from hunyuan_video.training.run import keep_config, lock
from hunyuan_video.training.shards import Manifest, Outcome, Sample, Skipped, recorded, write_shard
from hunyuan_video.weights import Weights, find_or_embedded, is_large

log = logging.getLogger(__name__)

MIN_JUDGED = 50  # sources looked at before the share that failed means anything
NAMES_SHOWN = 3
REPORT = "report.md"


@dataclass(frozen=True)
class DataPreparation:
    """Which videos and images to encode, into clips of which sizes, and with what."""

    source: Positional[Path]
    """folder of videos and images with a .txt caption beside each, or a .jsonl or .csv list of files and captions"""
    buckets: tuple[str, ...] = ()
    """sizes of clips as FRAMESxHEIGHTxWIDTH, such as 33x128x128 1x128x128; a source goes to the nearest (default: the size that the
    weights are made for, as videos and as images)"""
    fps: float = 24.0
    """frames per second of the clips; HunyuanVideo is trained at 24"""
    clips_per_video: int = 1
    """a video longer than its bucket gives its start, or with more than 1, up to this many clips one behind the other"""
    texts: int = 4
    """of a caption with fields (docs/curation.md), how many texts are made, each of some fields in some order; plain ones stay"""
    max_failures: float = 0.1
    """stop when more than this share of the sources (of at least 50) cannot be used"""
    shard_size: int = 64
    """sources to a shard; what is encoded since the last whole shard is lost when the preparation is interrupted"""
    discard: bool = False
    """go on with a list that has become shorter, and delete the shards of which no source is left"""
    weights: Path | None = None
    """root of the weights whose VAE and text encoders encode (default: $MODEL_BASE, else ./ckpts, else the embedded miniature)"""
    device: str = "auto"
    """auto (CUDA if there is one, else cpu), cpu, cuda, cuda:1 …"""
    dtype: DType = "auto"
    """of the VAE and the text encoders; auto: float16 on CUDA, float32 on CPU"""

    def __post_init__(self) -> None:
        Runtime(device=self.device, vae_dtype=self.dtype)  # which knows what these may be
        for bucket in self.buckets:
            Bucket.parse(bucket)
        for name in ("clips_per_video", "texts", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 < self.fps <= 240:
            raise ValueError(f"fps is {self.fps}; it must be above 0 and at most 240.")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"max_failures is {self.max_failures}; it is a share, between 0 and 1.")

    def sizes(self, found: Weights) -> list[Bucket]:
        """Raises a ValueError for images if these weights make none."""
        if self.buckets:
            sizes = sorted({Bucket.parse(bucket) for bucket in self.buckets})
            if found.needs_picture and sizes[0].num_frames == 1:
                raise ValueError(
                    f"The bucket {sizes[0]} is for images, but the weights in {found.root} make videos that begin with one; leave it out."
                )
            return sizes
        made_for = found.sampling()
        lengths = (made_for.num_frames,) if found.needs_picture else (1, made_for.num_frames)
        return [Bucket(frames, made_for.height, made_for.width) for frames in lengths]


def prepare(config: DataPreparation, folder: str | Path, *, may_shrink: bool = False) -> str:
    """Encode the sources into a latent cache in `folder`, or those that are new to it; returns the report, which is also kept in the cache.

    What is encoded stays, and counts while its source is listed. `may_shrink`: fewer sources than before are no mistake.

    Raises:
        ValueError: too many sources cannot be used, or all; or the folder holds a cache of other settings, or of more sources.
    """
    folder, found, items = Path(folder), find_or_embedded(config.weights), _by_digest(media.find_items(config.source))
    buckets = config.sizes(found)
    request = {
        "source": config.source.resolve(),
        "buckets": [str(bucket) for bucket in buckets],
        "fps": config.fps,
        "clips_per_video": config.clips_per_video,
        "shard_size": config.shard_size,
        "dtype": config.dtype,
        "encoders_identity": identity.of_encoders(found),
    }
    if any(fields_of(item.caption) for item in items.values() if not item.problem):
        request["texts"] = config.texts
    if found.sees:
        request["conditioning"] = found.conditioning  # by which more or fewer of a picture's states are kept
    with lock(folder, "preparation"):
        if not config.discard and not may_shrink:
            _check_length(folder, len(items))
        keep_config(folder, request | {"num_sources": len(items)}, ("num_sources", "texts"))  # what is made stays as it is
        manifest = _manifest_of(folder)
        manifest.count_only(items)
        if config.discard:
            for index in [index for index, entry in manifest.shards.items() if not entry["items"].keys() & items.keys()]:
                manifest.remove(index)
        todo = _todo(manifest, items, config.shard_size)
        manifest.begin(todo)
        if todo or not manifest.empty:
            text, vae = _load_encoders(found, config)
            manifest.add_empty(text)
            num_known = len(items) - sum(map(len, todo.values()))
            log.info("encoding %d of %d sources with %s", len(items) - num_known, len(items), found.root)
            judge = _Judge(config.max_failures, num_known, manifest.skipped)
            with tqdm(total=len(items), initial=num_known, desc="encoding", unit="clip", smoothing=0.02) as bar:
                for index, part in todo.items():
                    samples, outcomes = _encode_part(part, config, buckets, vae, judge, bar, sees=found.sees)
                    manifest.add(index, outcomes, write_shard(manifest.path(index), samples, _skipped(part, outcomes), text))
        skipped = _skipped(items, manifest.outcomes)
        text = report(f"Latent cache of {config.source}", manifest.buckets, skipped, len(items))
        with replacing(folder / REPORT) as (temporary, _):
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        if not manifest.buckets:
            if not any(entry["samples"] for entry in manifest.shards.values()):
                for path in (*map(manifest.path, manifest.shards), folder / MANIFEST, folder / "config.json"):
                    path.unlink()  # nothing is lost, and other settings, which may do better, can have this folder
            raise ValueError(f"{_none_usable(skipped, buckets, config.fps)}; {folder / REPORT} names them.")
        return text


def _check_length(folder: Path, num_sources: int) -> None:
    """Raises a ValueError if the cache in `folder` is of more sources than these."""
    path = folder / "config.json"
    if path.exists() and num_sources < read_json(path).get("num_sources", 0):
        raise ValueError(
            f"{folder} holds what was encoded of a longer list than these {num_sources} sources; give all again, or another folder, or let "
            "go of the rest with --discard."
        )


def _manifest_of(folder: Path) -> Manifest:
    """Raises a ValueError if it is of an earlier version, which could not tell what became of one source."""
    manifest = Manifest(folder)
    if any(isinstance(entry["items"], str) for entry in manifest.shards.values()):
        raise ValueError(
            f"{folder} was made by an earlier version, which did not note what each source gave; training reads it as it is, but clips can "
            "only be added in another folder."
        )
    return manifest


def _todo(manifest: Manifest, items: Mapping[str, media.Item], shard_size: int) -> dict[int, dict[str, media.Item]]:
    """What no shard holds, in the order of the list, for shards with the lowest numbers that are free."""
    known = manifest.outcomes
    new = [(digest, item) for digest, item in items.items() if digest not in known]
    parts = [dict(new[start : start + shard_size]) for start in range(0, len(new), shard_size)]
    return dict(zip((index for index in count() if index not in manifest.shards), parts, strict=False))


def as_before(config: DataPreparation, folder: Path) -> DataPreparation:
    """Into the cache that `folder` may hold, or of which it holds a part: cut and encoded as it was, where no buckets are given."""
    path = folder / "config.json"
    old = read_json(path) if path.exists() else {}
    kept = {name: old[name] for name in ("fps", "clips_per_video", "texts", "shard_size", "dtype") if name in old}
    return replace(config, buckets=config.buckets or tuple(old.get("buckets", ())), **kept)


@dataclass(frozen=True)
class Survey:
    """What sources would give, if none proves damaged on decoding."""

    source: Path
    num_sources: int
    buckets: Counter[str]
    """samples by size"""
    skipped: Skipped
    missing: int
    """of the samples, how many a cache does not hold yet"""
    problem: str
    """why there is none, and what would mend it"""

    def check(self) -> None:
        """Raises a ValueError if none of the sources can be used."""
        if self.problem:
            raise ValueError(self.problem)

    @property
    def report(self) -> str:
        return report(f"What {self.source} would give", self.buckets, self.skipped, self.num_sources)

    @property
    def line(self) -> str:
        """Everything in a sentence."""
        sizes = ", ".join(f"{self.buckets[bucket]} of {bucket}" for bucket in sorted(self.buckets, key=Bucket.parse))
        frames = sum(Bucket.parse(bucket).num_frames * count for bucket, count in self.buckets.items())
        skipped = f"; skipped are {_counts(_numbers(self.skipped))}" if self.skipped else ""
        return (
            f"{self.source}: {_samples(self.buckets.total())} of {self.num_sources:,} sources ({sizes}), {frames:,} frames{skipped}. "
            f"To be encoded first: {_samples(self.missing)}."
        )


def survey(config: DataPreparation, folder: Path | None = None) -> Survey:
    """Looks at the sources, and at what a cache in `folder` holds of them; reads headers, decodes one frame of each, writes nothing."""
    buckets, items = config.sizes(find_or_embedded(config.weights)), _by_digest(media.find_items(config.source))
    made = set[str]() if folder is None else recorded(folder)
    counts, missing = Counter[str](), 0
    skipped: Skipped = {}
    for digest, item in tqdm(items.items(), desc="looking", unit="clip", disable=None):
        try:
            cuts = media.plan(item, buckets, config.fps, config.clips_per_video)
        except media.UnusableError as error:
            skipped.setdefault(error.reason, []).append(item.name)
            log.warning("%s would be skipped: %s", item.name, error)
        else:
            counts.update(str(cut.bucket) for cut in cuts)
            missing += 0 if digest in made else len(cuts)
    problem = "" if counts else f"{_none_usable(skipped, buckets, config.fps)}."
    return Survey(config.source, len(items), counts, skipped, missing, problem)


def clips(source: Path) -> dict[str, str]:
    """What tells whether a source's clips are what they were, by name; those with a problem that can be seen from outside are no clips."""
    return {item.name: digest[:16] for digest, item in _by_digest(media.find_items(source)).items() if not item.problem}


def _none_usable(skipped: Skipped, buckets: Sequence[Bucket], fps: float) -> str:
    """The sentence for sources of which none gives a clip, and what would mend it."""
    counts = _numbers(skipped)
    said = f"None of the {counts.total()} sources could be used ({_counts(counts)})"
    if "no caption" in skipped:
        said += "; a caption stands beside its clip, as clip.txt beside clip.mp4, or in its row"
    if "too short" in skipped:
        said += f"; {media.least(buckets, fps)}"
    return said


def _samples(count: int) -> str:
    return f"{count:,} sample{'' if count == 1 else 's'}"


def _numbers(skipped: Skipped) -> Counter[str]:
    return Counter({reason: len(names) for reason, names in skipped.items()})


def report(title: str, buckets: Counter[str], skipped: Skipped, num_sources: int) -> str:
    """Two Markdown tables: samples by bucket, and sources that could not be used by reason."""
    lines = [f"# {title}", "", f"{buckets.total():,} samples of {num_sources:,} sources.", ""]
    lines.append(markdown.table(["bucket", "samples"], ([bucket, f"{buckets[bucket]:,}"] for bucket in sorted(buckets, key=Bucket.parse))))
    if skipped:
        most = sorted(skipped.items(), key=lambda entry: -len(entry[1]))
        rows = ([reason, f"{len(names):,}", ", ".join(names[:NAMES_SHOWN])] for reason, names in most)
        lines += ["", markdown.table(["skipped because", "sources", "such as"], rows)]
    return "\n".join(lines) + "\n"


def _by_digest(items: Sequence[media.Item]) -> dict[str, media.Item]:
    """Sources by what tells whether one is what it was: its name, caption and content. What is listed twice is there twice."""
    times, found = Counter[tuple[str | None, ...]](), dict[str, media.Item]()
    for item in tqdm(items, desc="comparing", unit="clip", leave=False, disable=None):
        facts = (item.name, item.caption, item.problem, None if item.problem else item.content)
        times[facts] += 1
        found[hashlib.sha256(json.dumps([*facts, times[facts]]).encode()).hexdigest()] = item
    return found


def _load_encoders(found: Weights, config: DataPreparation) -> tuple[TextEncoder, CausalVAE]:
    device = resolve_device(config.device)
    runtime = Runtime(text_dtype=config.dtype, vae_dtype=config.dtype)
    text_dtype = dtype_of("text", runtime, device, large=is_large(found.text_encoder))
    vae_dtype = dtype_of("vae", runtime, device, large=is_large(found.vae))
    in_file = stays_in_file(found.text_encoder, device)
    text = load_encoders(found, found.conditioning, text_dtype, device, as_stored=in_file)
    vae = load_vae(found.vae, vae_dtype, device)
    assemble(Models(text=text, vae=vae), runtime, World(device))
    return text, vae


class _Judge:
    """Ends a preparation of which too much fails: then it is the request that is wrong, not a few files."""

    def __init__(self, max_failures: float, num_seen: int, skipped: Counter[str]):
        self.max_failures, self.num_seen, self.skipped = max_failures, num_seen, skipped

    def __call__(self, failure: media.UnusableError | None) -> None:
        self.num_seen += 1
        if failure is not None:
            self.skipped[failure.reason] += 1
        if self.num_seen >= MIN_JUDGED and self.skipped.total() > self.max_failures * self.num_seen:
            raise ValueError(
                f"{self.skipped.total()} of the first {self.num_seen} sources cannot be used ({_counts(self.skipped)}), more than "
                f"max_failures, {self.max_failures:g}, allows; mend them, or allow more."
            )


def _encode_part(
    items: Mapping[str, media.Item],
    config: DataPreparation,
    buckets: Sequence[Bucket],
    vae: CausalVAE,
    judge: _Judge,
    bar: tqdm,
    *,
    sees: bool,
) -> tuple[list[Sample], dict[str, Outcome]]:
    samples: list[Sample] = []
    outcomes: dict[str, Outcome] = {}
    for digest, item in items.items():
        failure = None
        try:
            cuts = media.plan(item, buckets, config.fps, config.clips_per_video)
            # A list: of a source that proves damaged further on, nothing is kept.
            samples += [_sample(vae, clip, texts_of(item.caption, config.texts), sees=sees) for clip in media.read_clips(item, cuts)]
            outcomes[digest] = [str(cut.bucket) for cut in cuts]
        except media.UnusableError as error:
            failure = error
            outcomes[digest] = error.reason
            log.warning("skipped %s%s: %s", item.name, " and went on with the others" if bar.total > 1 else "", error)
        judge(failure)
        bar.update()
    return samples, outcomes


def _sample(vae: CausalVAE, clip: UInt8[np.ndarray, "F H W 3"], texts: list[str], *, sees: bool) -> Sample:
    caption, *others = texts
    if not sees:
        return Sample(encode(vae, clip)[0], caption, others=tuple(others))
    # Alone: beside others a frame has other latents, because normalisation looks at all of them.
    return Sample(encode(vae, clip)[0], caption, encode(vae, clip[:1])[0], Image.fromarray(clip[0]), tuple(others))


def _counts(skipped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())


def _skipped(items: Mapping[str, media.Item], outcomes: Mapping[str, Outcome]) -> Skipped:
    """Those of the items that could not be used."""
    skipped: Skipped = {}
    for digest, item in items.items():
        if isinstance(reason := outcomes[digest], str):
            skipped.setdefault(reason, []).append(item.name)
    return skipped
