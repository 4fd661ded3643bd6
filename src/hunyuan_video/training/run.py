"""A run folder: config, metrics, and checkpoints that survive a kill at any moment.

    runs/dit/
      .lock                      held by the training that works here; a second one is refused
      config.json                the settings the run was started with; a different config is refused
      events.out.tfevents.*      TensorBoard
      checkpoints/step-00001000/ complete checkpoints, the newest few (torch.distributed.checkpoint: any number of ranks can read them)

Resume is exact because nothing random is carried along: every draw is a function of (seed, purpose, step), made by
`random_generator`. A checkpoint therefore needs only the step and the tensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed.checkpoint as dcp
from filelock import AcquireReturnProxy, FileLock, Timeout
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hunyuan_video.distributed.once import once
from hunyuan_video.distributed.world import World
from hunyuan_video.files import flush, replacing, why_not_written
from hunyuan_video.memory import most_resident

log = logging.getLogger(__name__)

ALONE = World()


def random_generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `random_generator(seed, "noise", step)`; independent for every distinct key."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def keep_config(folder: Path, config: dict[str, Any], may_change: Collection[str] = (), *, begun: bool = True) -> None:
    """Write `config.json` into a new folder; in an old one, it must say the same, except for what `may_change`. A folder in which nothing
    has `begun` to be made is as good as new.

    Raises:
        ValueError: the folder was made with other settings; names them.
    """
    path = folder / "config.json"
    new = json.loads(json.dumps(config, default=str))
    if begun and path.exists():
        changed = changed_settings(folder, new)
        if refused := [text for key, text in changed.items() if key not in may_change]:
            raise ValueError(f"{folder} was made with other settings ({', '.join(refused)}); use them, or another folder.")
        if changed:
            log.info("%s goes on with other settings than before (%s)", folder, ", ".join(changed.values()))
        elif new.keys() <= _recorded(folder).keys():
            return
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (temporary, _):
        temporary.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")


def changed_settings(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Which of these settings are others in a folder's `config.json`, and how. An identity that it has not recorded is taken to be the
    same: it was made before there was such a thing."""
    old, new = _recorded(folder), json.loads(json.dumps(config, default=str))
    known = {key: value for key, value in new.items() if key in old or not key.endswith("_identity")}
    return {key: _change(key, old.get(key), value) for key, value in known.items() if old.get(key) != value}


def _recorded(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _change(key: str, old: Any, new: Any) -> str:
    """Two digests say nothing to a reader, and many say how many."""
    what = re.fullmatch(r"(.+)_(digest|identity)", key)
    if what is not None and isinstance(old, dict) and isinstance(new, dict):
        others = sum(old[name] != new[name] for name in old.keys() & new.keys())
        return f"{what[1]}: {len(new.keys() - old.keys())} new, {len(old.keys() - new.keys())} gone, {others} changed"
    return f"{key}: {old!r} -> {new!r}" if what is None else f"what is in {what[1]} has changed"


def lock(folder: Path, what: str) -> AcquireReturnProxy:
    """Keep others, who ask here too, from working in `folder`, until the `with` block of what is returned or this process ends.

    Raises:
        BlockingIOError: another `what` works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / ".lock", thread_local=False).acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(f"Another {what} works in {folder}; wait for its end, or choose another folder.") from error


class Run:
    """One training run in one folder, opened by all of its ranks; `config` is a dataclass, and `inputs` are digests of what it reads.
    Only the first rank writes; what fails there, such as a full disk, fails on all.

    A checkpoint is due every `save_every` steps; without that every `checkpoint_seconds`, but so rarely that saving takes a tenth of the
    time at most (0: after every step)."""

    def __init__(
        self,
        folder: str | Path,
        config: Any,
        *,
        inputs: dict[str, str] | None = None,
        may_change: Collection[str] = (),
        world: World = ALONE,
        keep: int = 2,
        checkpoint_seconds: float = 60.0,
        save_every: int | None = None,
        wandb_project: str | None = None,
    ):
        self.folder, self.world, self.keep = Path(folder), world, keep
        self.checkpoint_seconds, self.save_every = checkpoint_seconds, save_every
        self._saved, self._took = time.monotonic(), 0.0
        self._bar: tqdm | None = None
        self._writer: SummaryWriter | None = None
        self._wandb: Any = None
        self._alone = ExitStack()

        def open_folder() -> None:
            with ExitStack() as alone:
                alone.enter_context(lock(self.folder, "training"))
                keep_config(self.folder, asdict(config) | (inputs or {}), may_change, begun=bool(self._complete()))
                if wandb_project is not None:
                    self._wandb = _start_wandb(wandb_project, self.folder, config)
                self._checkpoints.mkdir(exist_ok=True)
                for unfinished in self._checkpoints.glob(".*.tmp"):
                    shutil.rmtree(unfinished)
                self._alone = alone.pop_all()

        once(open_folder)

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _complete(self) -> list[Path]:
        return sorted(self._checkpoints.glob("step-*"))

    def load(self, state: dict[str, Tensor]) -> int:
        """Read the newest checkpoint into the tensors of `state`, in place; returns how many steps were completed then, 0 at the start."""
        step = once(lambda: max((int(path.name.removeprefix("step-")) for path in self._complete()), default=0))
        if step > 0:
            with _single_process_is_meant(self.world):
                dcp.load(state, checkpoint_id=self._checkpoints / f"step-{step:08d}", no_dist=self.world.size == 1)
            log.info("%s continues at step %d.", self.folder, step)
        else:
            log.info("%s begins at step 0: there is no checkpoint here.", self.folder)
        if self.world.is_main:
            self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)  # what was logged after the checkpoint comes again
        return step

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps. Clocks differ: what the first rank says counts."""
        if self.save_every is not None:
            return step % self.save_every == 0
        wait = max(self.checkpoint_seconds, 9 * self._took) if self.checkpoint_seconds > 0 else 0.0
        return time.monotonic() - self._saved >= wait

    def save(self, step: int, state: dict[str, Tensor]) -> None:
        """Add a checkpoint. It appears whole or not at all: a kill at any moment leaves the older ones.

        Raises:
            OSError: it cannot be written, such as on a full disk; the older ones are there.
        """
        began = time.monotonic()
        path = self._checkpoints / f"step-{step:08d}"
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with _single_process_is_meant(self.world):
                dcp.save(state, checkpoint_id=temporary, no_dist=self.world.size == 1)  # flushes its files; returns when all ranks are done
        except dcp.CheckpointException as error:  # which is no Exception, and raised on all ranks
            once(lambda: shutil.rmtree(temporary, ignore_errors=True))
            first, _ = next(iter(error.failures.values()))
            what = (why_not_written(first, temporary) if isinstance(first, Exception) else None) or " ".join(str(first).split())
            raise OSError(f"Cannot write {path}: {what}; make room there. The older checkpoints are whole.") from error

        def put_in_place() -> None:
            os.replace(temporary, path)
            flush(self._checkpoints)
            for old in self._complete()[: -self.keep]:
                shutil.rmtree(old)
            if self._writer is not None:
                self._writer.flush()

        once(put_in_place)
        self._saved = time.monotonic()
        self._took = self._saved - began

    def stop(self, step: int, state: dict[str, Tensor]) -> NoReturn:
        """Save a checkpoint, say so, and end as after Ctrl-C: what a training does that is asked to stop."""
        self.save(step, state)
        log.info("Stopped after step %d, with a checkpoint in %s; the same command continues there.", step, self.folder)
        raise KeyboardInterrupt

    def log(self, step: int, **scalars: float) -> None:
        """Write scalars to TensorBoard, and W&B if that was asked for, and show them behind the progress bar."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in scalars.items()}, refresh=False)

    def steps(self, start: int, total: int) -> Iterator[int]:
        """Step numbers start…total-1 behind a progress bar with rate and ETA."""
        with tqdm(
            total=total, initial=start, desc=self.folder.name, unit="step", mininterval=2.0, disable=not self.world.is_main
        ) as self._bar:
            for step in range(start, total):
                yield step
                self._bar.update()
        self._bar = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()
        self._alone.close()


def count_skipped(skipped: Tensor, went_well: bool, step: int, limit: int) -> None:
    """Count a step in `skipped`, int64 [of all steps, of those just before], in place.

    Raises:
        ValueError: more than `limit` in a row did not go well.
    """
    skipped += torch.tensor([0 if went_well else 1] * 2)
    if went_well:
        skipped[1] = 0
    if skipped[1] > limit:
        raise ValueError(
            f"The loss or its gradient was not finite in {int(skipped[1])} steps in a row, up to step {step}, and none of them changed the "
            "weights; start it again with a lower learning rate, or look at the data that these steps read."
        )


def _single_process_is_meant(world: World) -> warnings.catch_warnings:
    """`torch.distributed.checkpoint` warns of every use in one process, which is what was asked of it."""
    return warnings.catch_warnings(action="ignore" if world.size == 1 else None)


def _start_wandb(project: str, folder: Path, config: Any) -> Any:
    """A W&B run, which a resumed training continues. `WANDB_MODE=offline` keeps it in the folder until `wandb sync`."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "--wandb-project needs the package wandb, which is not installed: pip install 'hunyuan-video[wandb]', or '.[wandb]' in a clone."
        ) from error
    identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    settings = json.loads(json.dumps(asdict(config), default=str))
    return wandb.init(project=project, name=folder.name, id=identity, dir=str(folder), resume="allow", config=settings)


def peak_memory(device: torch.device) -> float:
    """The most memory this process has held, in GB: of the GPU that it uses, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    taken = most_resident()
    return float("nan") if taken is None else taken / 1e9


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` of a GPU begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
