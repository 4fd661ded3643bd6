"""One video on many ranks, every way in which they share it, and the same alone; a module of its own, as spawned processes must be able to
import it."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from adapters import random_lora
from torch import Tensor
from torch.distributed.tensor import DTensor

from hunyuan_video import continuing
from hunyuan_video.checkpoint import fitting_sizes
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.config import Runtime, Sampling
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.pipeline import HunyuanVideo, Video
from hunyuan_video.request import Adapter, Clip, Continued, Request, Strengths
from hunyuan_video.weights import EMBEDDED, find, locate

PROMPT = "A red circle moves to the right on a blue background."
IN_FLOAT32 = Runtime(device="cpu", dtype="float32", vae_dtype="float32", text_dtype="float32", attention="sdpa")
SMALL = Sampling(height=64, width=48, num_frames=9, num_steps=2, seed=7)


@dataclass(frozen=True)
class Case:
    """A video, in numbers of ranks that make it; settings that one process has, too, and those that only ranks have."""

    ranks: Sequence[int]
    runtime: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    sampling: Sampling = SMALL
    image: bool = False
    adapter: bool = False
    file_in_8_bits: bool = False
    times: int = 0
    """how often it goes on from a clip"""
    slow: bool = False


TWO_BRANCHES = replace(SMALL, cfg_scale=3.0)
CASES = {
    "whole": Case(range(2, 9), sampling=Sampling(seed=7), slow=True),  # at the model's own size, in as many steps as it has
    "plain": Case([2, 3, 4]),
    "Ulysses and ring": Case([4], shared={"ulysses_degree": 2, "ring_degree": 2}),
    "image": Case([3], image=True),
    "adapter": Case([2], adapter=True, slow=True),
    "8 bits": Case([2], {"fp8": True, "text_fp8": True}, slow=True),
    "adapter beside a file in 8 bits": Case([3], adapter=True, file_in_8_bits=True, slow=True),
    "two branches": Case([2, 4], sampling=TWO_BRANCHES),
    "offload by blocks": Case([2], {"offload": "blocks"}, slow=True),
    "VAE whole": Case([2], {"vae_tiling": False}, image=True, slow=True),
    "sharded": Case([4], shared={"shard": True}),
    "sharded in 8 bits beside an adapter": Case([3], {"text_fp8": True}, {"shard": True}, adapter=True, file_in_8_bits=True, slow=True),
    "sharded for two branches, with an adapter in 8 bits": Case([4], {"fp8": True}, {"shard": True}, TWO_BRANCHES, adapter=True, slow=True),
    "progressive": Case([2], {"progressive": "space-time"}, sampling=replace(SMALL, num_steps=4)),
    "block-sparse": Case(
        [2],
        {"attention_density": 0.5, "sparse_pattern": "tiles"},
        sampling=Sampling(height=96, width=96, num_frames=33, num_steps=3, seed=7),
        slow=True,
    ),
    "gone on with": Case([2], times=2),
    "no seed": Case([2], sampling=replace(SMALL, seed=None)),
}


def prepare(folder: Path) -> None:
    """The embedded model, with a VAE whose tiles are small; its weights in 8 bits; and an adapter."""
    shutil.copytree(EMBEDDED, folder / "tree")
    found = locate(folder / "tree")
    config = found.vae / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 32, "sample_tsize": 16}))
    convert(found.transformer, folder / "fp8.pt", "fp8")
    with torch.device("meta"):
        model = HunyuanVideoTransformer(fitting_sizes(found))
    save_lora(random_lora(model), folder / "adapter.safetensors", "original", torch.float32)


def load(folder: Path, case: Case, shared: dict[str, Any]) -> HunyuanVideo:
    found = find(folder / "tree", folder / "fp8.pt" if case.file_in_8_bits else None)
    adapters = [Adapter(folder / "adapter.safetensors", Strengths(0.1))] if case.adapter else []
    return HunyuanVideo.load(found, replace(IN_FLOAT32, **case.runtime, **shared), case.sampling.over(found.sampling()), adapters)


def video(pipe: HunyuanVideo, case: Case) -> Video:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 64, 48, 3), dtype=np.uint8)
    if case.times:
        clip = Clip(pictures)
        *_, last = continuing.steps(pipe, Request(PROMPT, case.sampling), clip, Continued(clip.sha256, case.times, overlap=5))
        assert last.frames is not None and last.latents is not None
        return Video(last.frames, last.latents, last.provenance)
    picture = pictures[0] if case.image else None
    return pipe(PROMPT, case.sampling, image=picture)


def alone(folder: Path, names: Sequence[str]) -> None:
    """What one process makes of them."""
    made: dict[str, Video] = {}  # several differ only in how they are shared
    for case in (CASES[name] for name in names):
        if on_one(case) not in made:
            made[on_one(case)] = video(load(folder, case, {}), case)
    found = {name: made[on_one(CASES[name])] for name in names}
    torch.save({name: (video.latents, torch.from_numpy(video.frames)) for name, video in found.items()}, folder / "alone.pt")


def on_one(case: Case) -> str:
    """What one process is asked for."""
    return repr(replace(case, ranks=(), shared={}))


def bytes_of_tensors() -> int:
    """All that this process has in tensors that were not there when it began, each storage once."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor) and type(thing) is not DTensor]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors if not tensor.is_meta}
    return sum(storage.nbytes() for storage in storages.values())


def share_of(pipe: HunyuanVideo) -> float:
    """Bytes of a rank's weights: of what is spread, its share."""
    assert pipe.text_encoder is not None
    spread, whole = [pipe.transformer, pipe.text_encoder.llm], [pipe.text_encoder.clip, pipe.vae]
    parameters = [parameter for model in spread for parameter in model.parameters()]
    return sum(p.nbytes for p in parameters) / dist.get_world_size() + sum(p.nbytes for model in whole for p in model.parameters())


def on_this_rank(folder: Path, name: str) -> dict[str, Any]:
    """What this rank has of a video, and how far it is from the one that one process makes."""
    case = CASES[name]
    before = bytes_of_tensors() if case.shared.get("shard") else 0
    pipe = load(folder, case, case.shared)
    made = video(pipe, case)
    expected, frames = torch.load(folder / "alone.pt")[name]
    found = {
        "latents": sha256(made.latents.numpy().tobytes()).hexdigest(),
        "frames": made.provenance.frames_sha256,
        "seed": made.provenance.sampling.seed,
        "apart": ((made.latents - expected).abs().max() / expected.abs().max()).item(),
        "levels": int((torch.from_numpy(made.frames).int() - frames.int()).abs().max()),
    }
    del made, expected, frames
    if case.shared.get("shard"):
        found |= {"bytes": bytes_of_tensors() - before, "share": share_of(pipe)}
    return found


def work(rank: int, _most: int, folder: Path, numbers: Sequence[int], names: Sequence[str]) -> None:
    """The videos of each number of ranks in turn, of which this may be one; the results go to `folder`."""
    torch.set_num_threads(1)
    gc.freeze()  # what has been imported is not looked through each time
    results = {}
    for number in sorted(numbers, reverse=True):  # whom the others need no more has finished, and does not wait
        if rank < number:
            store = f"file://{folder}/store{number}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=number, timeout=timedelta(seconds=120))
            results |= {f"{name} on {number}": on_this_rank(folder, name) for name in names if number in CASES[name].ranks}
            dist.destroy_process_group()
    torch.save(results, folder / f"{rank}.pt")
