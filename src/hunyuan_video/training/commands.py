"""`hunyuan-video train text | vae | cache | transformer`: the steps of recipes/tiny, one command each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

try:
    from hunyuan_video.training import dataset, train, train_text, train_vae
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("hunyuan_video"):
        raise
    raise ImportError(f"Training needs the package {error.name}, which is not installed: pip install 'hunyuan-video[train]'.") from error

Flat = tyro.conf.arg(name="")

STEPS: dict[str, tuple[Any, Any, str]] = {
    "text": (train_text.TextTraining, train_text.train, "Train the miniature's tokenizers and text encoders."),
    "vae": (train_vae.VAETraining, train_vae.train, "Train the miniature's VAE."),
    "cache": (dataset.WorldCache, dataset.prepare, "Render clips and store their latents and text states."),
    "transformer": (train.TransformerTraining, train.train, "Train the diffusion transformer on a latent cache."),
}


def run(step: str, arguments: list[str]) -> None:
    """Parse the options of one step and run it; running it again continues it."""
    config_type, work, description = STEPS[step]

    @dataclass(frozen=True)
    class Options:
        out: Path
        """folder of this step; if it holds an unfinished run with the same settings, that is continued"""
        config: Annotated[config_type, Flat] = field(default_factory=config_type) if step in ("text", "vae") else tyro.MISSING  # type: ignore[valid-type]

    options = tyro.cli(Options, args=arguments, prog=f"hunyuan-video train {step}", description=description)
    work(options.config, options.out)
