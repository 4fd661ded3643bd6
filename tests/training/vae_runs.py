"""What tests of VAE trainings do with a run: stop it, and look at what it has written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hunyuan_video.training import train_vae


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "vae" / "pytorch_model.safetensors")


def kill(train: Callable[[], object], monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Ctrl-C before a step is done."""
    clips_of = train_vae.clips_of

    def killed(config: train_vae.VAETraining, source: Any, step: int) -> torch.Tensor:
        if step == at:
            raise KeyboardInterrupt
        return clips_of(config, source, step)

    with monkeypatch.context() as patch:
        patch.setattr(train_vae, "clips_of", killed)
        with pytest.raises(KeyboardInterrupt):
            train()
