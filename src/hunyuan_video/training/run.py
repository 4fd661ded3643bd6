"""A run folder: config, metrics, and checkpoints that survive a kill at any moment.

    runs/dit/
      config.json                the settings the run was started with; a different config is refused
      events.out.tfevents.*      TensorBoard
      checkpoint.pt              the newest complete checkpoint (replaced atomically)

Resume is exact because nothing random is carried along: every draw is a function of (seed, purpose, step), made by
`random_generator`. A checkpoint therefore needs only the step, the tensors and the optimizer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hunyuan_video.files import replacing

log = logging.getLogger(__name__)


def random_generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `random_generator(seed, "noise", step)`; independent for every distinct key."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def keep_config(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.json` into a new folder; in an old one, it must say the same.

    Raises:
        ValueError: the folder was made with other settings; names them.
    """
    path = folder / "config.json"
    new = json.loads(json.dumps(config, default=str))
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        changed = ", ".join(f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(old | new) if old.get(key) != new.get(key))
        if changed:
            raise ValueError(f"{folder} was made with other settings ({changed}); use them, or another folder.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (temporary, _):
        temporary.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")


class Run:
    """One training run in one folder."""

    def __init__(self, folder: str | Path, config: Any):
        self.folder = Path(folder)
        keep_config(self.folder, asdict(config))
        self._writer = SummaryWriter(str(self.folder))
        self._bar: tqdm | None = None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint as `{"step": completed steps, …}`, or None at the start of a run."""
        if not self.checkpoint.exists():
            return None
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        log.info("resuming %s after step %d", self.folder, state["step"])
        return state

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Replace the checkpoint atomically: a kill at any moment leaves the old one or the new one, never half of one."""
        with replacing(self.checkpoint) as (temporary, _):
            torch.save({"step": step, **state}, temporary)
        self._writer.flush()

    def log(self, step: int, **scalars: float) -> None:
        """Write scalars to TensorBoard and show them behind the progress bar."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in scalars.items()}, refresh=False)

    def steps(self, start: int, total: int) -> Iterator[int]:
        """Step numbers start…total-1 behind a progress bar with rate and ETA."""
        with tqdm(total=total, initial=start, desc=self.folder.name, unit="step", mininterval=2.0) as self._bar:
            for step in range(start, total):
                yield step
                self._bar.update()
        self._bar = None

    def close(self) -> None:
        self._writer.close()


class Every:
    """True at most once in each `seconds`: for checkpoints whose cost should not depend on the speed of a step."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.last = time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
