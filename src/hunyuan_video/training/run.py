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
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

log = logging.getLogger(__name__)


def random_generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `random_generator(seed, "noise", step)`; independent for every distinct key."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Run:
    """One training run in one folder."""

    def __init__(self, folder: str | Path, config: Any):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_config(asdict(config))
        self._writer = SummaryWriter(str(self.folder))
        self._bar: tqdm | None = None

    def _write_config(self, config: dict[str, Any]) -> None:
        path = self.folder / "config.json"
        text = json.dumps(config, indent=2, default=str)
        if path.exists() and path.read_text() != text:
            old, new = json.loads(path.read_text()), json.loads(text)
            changed = ", ".join(f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(old | new) if old.get(key) != new.get(key))
            raise ValueError(f"{self.folder} holds a run with other settings ({changed}); use them, or another folder.")
        path.write_text(text)

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
        temporary = self.checkpoint.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save({"step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.checkpoint)
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
