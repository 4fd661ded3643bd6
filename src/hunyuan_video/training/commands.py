"""`hunyuan-video train text | vae | cache | transformer`: the steps of recipes/tiny, one command each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

try:
    from hunyuan_video.training import dataset, train, train_text, train_vae
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("hunyuan_video"):
        raise
    raise ImportError(f"Training needs the package {error.name}, which is not installed: pip install 'hunyuan-video[train]'.") from error

Flat = tyro.conf.arg(name="")


def text(out: Path, config: Annotated[train_text.TextTraining, Flat]) -> None:
    """Train the miniature's tokenizers and text encoders; OUT is the folder they are written to."""
    train_text.train(config, out)


def vae(out: Path, config: Annotated[train_vae.VAETraining, Flat]) -> None:
    """Train the miniature's VAE; run it again with the same OUT and settings to continue."""
    train_vae.train(config, out)


def cache(out: Path, config: Annotated[dataset.WorldCache, Flat]) -> None:
    """Render clips and store their latents and text states in OUT; run it again to continue."""
    dataset.prepare(config, out)


def transformer(out: Path, config: Annotated[train.TransformerTraining, Flat]) -> None:
    """Train the diffusion transformer on a latent cache; run it again with the same OUT and settings to continue."""
    train.train(config, out)


STEPS: dict[str, Callable[..., None]] = {"text": text, "vae": vae, "cache": cache, "transformer": transformer}


def run(step: str, arguments: list[str]) -> None:
    """Parse the options of one step and do it."""
    tyro.cli(STEPS[step], args=arguments, prog=f"hunyuan-video train {step}")
