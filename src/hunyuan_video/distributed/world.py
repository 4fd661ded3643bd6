"""This process among those that torchrun has started, and the device that is its own.

Ranks lie on a grid of data ranks x stages x ring x Ulysses, the last one fastest, whose neighbours exchange most. The ranks of one data
rank see the same samples and share their tokens, or the model's blocks. In inference the two branches of guidance take the place of data.
Without torchrun there is one process, which needs none of this and has no process group.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout

from hunyuan_video.distributed import watch
from hunyuan_video.distributed.started import is_main_process, world_size

CPU = torch.device("cpu")
FIRST_TORCH = "2.13"  # in which several ranks are tested
PATIENCE = timedelta(hours=2)  # one rank may read 26 GB, or decode a video, while the others wait


class Degrees(NamedTuple):
    """How many ranks share one video. Its tokens: `ulysses` trade them for heads, in each of `ring` groups around which keys go. The
    model's blocks: `stages` have some each."""

    ulysses: int = 1
    ring: int = 1
    stages: int = 1

    @property
    def ranks(self) -> int:
        return self.ulysses * self.ring * self.stages


@dataclass(frozen=True)
class SequenceGroups:
    """The ranks of one video, as this rank sees them: its Ulysses group, and the ring of those with its place in the other groups."""

    ulysses: dist.ProcessGroup
    ring: dist.ProcessGroup

    @property
    def size(self) -> int:
        return self.ulysses.size() * self.ring.size()

    @property
    def index(self) -> int:
        """This rank's place among them."""
        return self.ring.rank() * self.ulysses.size() + self.ulysses.rank()

    def in_group(self, sizes: Sequence[int]) -> list[int]:
        """Of the sizes of all ranks' shares, those of its Ulysses group."""
        start = self.ring.rank() * self.ulysses.size()
        return list(sizes[start : start + self.ulysses.size()])

    def of_groups(self, sizes: Sequence[int]) -> list[int]:
        """And what each group has of them."""
        return [sum(sizes[start : start + self.ulysses.size()]) for start in range(0, len(sizes), self.ulysses.size())]


@dataclass(frozen=True)
class World:
    """This process among all. Without torchrun, the only one."""

    device: torch.device = CPU
    rank: int = 0
    size: int = 1
    degrees: Degrees = Degrees()  # noqa: RUF009 (a tuple)
    mesh: DeviceMesh | None = None
    """all ranks, over which weights are sharded"""
    sequence: SequenceGroups | None = None
    stages: dist.ProcessGroup | None = None
    """the ranks with the blocks of one model, in their order"""
    across: dist.ProcessGroup | None = None
    """the ranks with the same tokens: of other samples in training, of the other branch of guidance in inference"""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def sequence_parallel(self) -> int:
        return self.degrees.ranks

    @property
    def data_rank(self) -> int:
        return self.rank // self.sequence_parallel

    @property
    def data_size(self) -> int:
        return self.size // self.sequence_parallel

    @property
    def leads_sequence(self) -> bool:
        """One rank of each data rank: what is counted, or written, once for all ranks that see the same samples."""
        return self.rank % self.sequence_parallel == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum over the ranks that share a video's tokens, the same on each."""
        if self.sequence is not None:
            for group in (self.sequence.ulysses, self.sequence.ring):
                dist.all_reduce(x, group=group)
        return x

    def sum(self, *values: float) -> list[float]:
        """The sums over all ranks, the same on each. Nobody passes before all have come."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()


def resolve_device(name: str) -> torch.device:
    """The device of `Runtime.device`, which must exist; of torchrun's processes, each has a GPU of its own.

    No other GPU is touched, and this one only asked whether it is there: whatever is made on one takes 500 MB of it for CUDA's context.

    Raises:
        ValueError: it does not exist, or is one GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None and world_size() > 1:
        raise ValueError(f"device is {name!r}, but torchrun has started {world_size()} processes, each for a GPU of its own; say cuda.")
    device = placed(device)
    exists = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not exists[device.type]:
        raise ValueError(f"device is {str(device)!r}, but this machine has none; `hunyuan-video info` lists what it has.")
    return device


def placed(device: torch.device) -> torch.device:
    """A device as tensors name theirs: "cuda" is not equal to the "cuda:0" that it means, or to this process's own under torchrun."""
    if device.index is not None or device.type == "cpu":
        return device
    if device.type != "cuda":
        return torch.device(device.type, 0)
    if "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0)


@contextmanager
def process_group(device: str, timeout: timedelta = PATIENCE) -> Iterator[None]:
    """The connection of torchrun's processes. Inside another such block it is that one's: it cannot be made twice with the same port."""
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    backend, own = "gloo", resolve_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
        backend = "cpu:gloo,cuda:nccl"
    if not is_main_process():
        logging.getLogger("hunyuan_video").setLevel(logging.WARNING)
    dist.init_process_group(backend, timeout=timeout)
    try:
        yield
    except BaseException as error:
        watch.report(error)  # before what follows, which may wait for the others
        raise
    finally:
        dist.destroy_process_group()


def world_of_group(device: torch.device, degrees: Degrees, timeout: timedelta | None = None) -> World:
    """The world of the process group that is there, or of one process. `timeout` is for exchanges while all compute, and not for what one
    rank does for all, which may take long.

    Raises:
        ValueError: the ranks cannot be shared out, or PyTorch is too old for them.
    """
    size = dist.get_world_size() if dist.is_initialized() else 1
    if size > 1 and torch.__version__ < FIRST_TORCH:
        raise ValueError(
            f"Several ranks need PyTorch {FIRST_TORCH} or newer, whose FSDP keeps the shards that the optimizer knows; "
            f"this is {torch.__version__}."
        )
    if size % degrees.ranks:
        raise ValueError(
            f"{degrees.ranks} ranks are to share a video, but there are {size} processes; their number must be a multiple "
            "(`torchrun --nproc-per-node N …` starts N)."
        )
    if not dist.is_initialized():
        return World(device)
    serves = {pair.partition(":")[0] for pair in dist.get_backend_config().split(",")}
    if lacking := {"cpu", device.type} - serves:  # what the first rank reads for all is sent from the CPU
        raise ValueError(
            f"The process group has no backend for {' and '.join(sorted(lacking))}; make it by `process_group` "
            "(hunyuan_video.distributed.world), or with the backend cpu:gloo,cuda:nccl."
        )
    mesh = init_device_mesh(device.type, (size,))
    names = ("across", "stages", "ring", "ulysses")
    sizes = (size // degrees.ranks, degrees.stages, degrees.ring, degrees.ulysses)
    grid = init_device_mesh(device.type, sizes, mesh_dim_names=names)
    stages = grid.get_group("stages")  # patient: a stage waits while those before it work
    across, ring, ulysses = (_with_timeout(grid.get_group(name), timeout) for name in ("across", "ring", "ulysses"))
    sequence = SequenceGroups(ulysses, ring) if degrees.ulysses * degrees.ring > 1 else None
    stages, across = stages if degrees.stages > 1 else None, across if size > degrees.ranks else None
    return World(device, dist.get_rank(), size, degrees, mesh, sequence, stages, across)


def _with_timeout(group: dist.ProcessGroup, timeout: timedelta | None) -> dist.ProcessGroup:
    """The group, which gives up on a rank after `timeout`. Where it is that of all ranks, which is more patient, another of the same."""
    if timeout is not None and group is dist.group.WORLD:
        same = dist.new_group(timeout=timeout)
        assert isinstance(same, dist.ProcessGroup)  # a number only on those who are not in it
        return same
    if timeout is not None:
        _set_pg_timeout(timeout, group)
    return group
