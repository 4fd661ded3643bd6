"""What each rank of the tests of shared tiles does; a module of its own, as spawned processes must be able to import it."""

from __future__ import annotations

import gc
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measure import randomize
from tiny_checkpoint import VAE
from torch import Tensor

from hunyuan_video.distributed.tiles import over_ranks
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.transforms.tiling import TileSizes, decode_pieces, tiled_encode

TILES = TileSizes(pixels=32, frames=16)
RANKS = 3
# Latents: one tile; a row of two, fewer than ranks; many; rows and columns at several moments; the same of two videos.
SHAPES = {
    "one": (1, 4, 3, 4, 4),
    "row": (1, 4, 1, 3, 6),
    "many": (1, 4, 4, 10, 9),
    "several pieces": (1, 4, 9, 6, 5),
    "long": (2, 4, 15, 6, 7),
}


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function: Any):
        self.function, self.count = function, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.function(x)


def same(vae: CausalVAE, latents: Tensor) -> dict[str, Any]:
    """Whether frames and moments have every bit of one process's, and of how many tiles this rank has computed how many."""
    expected, number = list(decode_pieces(vae, latents, TILES)), 0

    def run(function: Any, tiles: Any) -> Any:
        nonlocal number
        number = len(tiles)
        return over_ranks(counted, tiles)

    counted = Counted(vae.decode)
    found = list(decode_pieces(vae, latents, TILES, run))
    pixels = torch.cat(expected, dim=2)
    posterior = tiled_encode(vae, pixels, TILES)
    shared = tiled_encode(vae, pixels, TILES, over_ranks)
    return {
        "same": len(found) == len(expected)
        and all(map(torch.equal, found, expected))
        and torch.equal(shared.mean, posterior.mean)
        and torch.equal(shared.logvar, posterior.logvar),
        "own": counted.count,
        "all": number,
    }


def most_held(number: int) -> tuple[int, int]:
    """Of many tiles, how many results were in memory at once, and how many rounds this rank was ahead of who takes them."""
    counted, held, ahead, taken = Counted(lambda x: x * 2), 0, 0, 0
    gc.freeze()  # so that only what comes now is looked through
    for result in over_ranks(counted, [torch.full((1, 1, 1, 7, 11), float(tile)) for tile in range(number)]):
        assert result.unique().tolist() == [2.0 * taken]
        # Summed, for a list of them would keep them for the next one to find.
        held = max(held, sum(type(thing) is Tensor and thing.shape == (1, 1, 1, 7, 11) for thing in gc.get_objects()) - number)
        ahead = max(ahead, counted.count - taken // RANKS)
        taken += 1
    assert taken == number
    return held, ahead


def failing(vae: CausalVAE, latents: Tensor) -> str:
    """What this rank hears when the second one has no memory for its second tile."""
    counted = Counted(vae.decode)

    def decode(x: Tensor) -> Tensor:
        if dist.get_rank() == 1 and counted.count == 1:
            raise torch.OutOfMemoryError("rank 1 has no memory")
        return counted(x)

    try:
        list(over_ranks(decode, [latents] * 4 * RANKS))
    except torch.OutOfMemoryError as error:
        return f"{error} after {counted.count}"
    return "nothing"


@torch.no_grad()
def work(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    vae = randomize(CausalVAE(VAE), std=0.2)
    results: dict[str, Any] = {name: same(vae, random(*shape)) for name, shape in SHAPES.items()}
    results["bfloat16"] = same(randomize(CausalVAE(VAE), std=0.2).bfloat16(), random(*SHAPES["many"]).bfloat16())
    results["failure"] = failing(vae, random(1, 4, 1, 3, 3))
    results["after a failure"] = same(vae, random(*SHAPES["many"]))
    results["held"] = most_held(30)
    results["held of more"] = most_held(90)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
