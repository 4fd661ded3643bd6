"""`hunyuan-video train …` and `hunyuan-video data …`: one command for each thing that is trained or prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

try:
    from hunyuan_video.training import prepare, train, train_text, train_vae
    from hunyuan_video.training import recipe as recipes
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("hunyuan_video"):
        raise
    raise ImportError(f"Training needs the package {error.name}, which is not installed: pip install 'hunyuan-video[train]'.") from error

Flat = tyro.conf.arg(name="")


def text(out: Path, config: Annotated[train_text.TextTraining, Flat]) -> None:
    """Train the miniature's tokenizers and text encoders; OUT is the folder they are written to."""
    train_text.train(config, out)


def vae(out: Path, config: Annotated[train_vae.VAETraining, Flat]) -> None:
    """Train a VAE, by default the miniature's; run it again with the same OUT and settings to continue."""
    train_vae.train(config, out)


def cache(out: Path, config: Annotated[prepare.WorldCache, Flat]) -> None:
    """Render clips and store their latents and text states in OUT; run it again to continue."""
    prepare.prepare_world(config, out)


def transformer(out: Path, config: Annotated[train.TransformerTraining, Flat], runtime: Annotated[train.TrainingRuntime, Flat]) -> None:
    """Train all weights of the diffusion transformer, from nothing or from weights; run it again with the same OUT to continue."""
    train.train(config, out, runtime)


def lora(out: Path, config: Annotated[train.LoraTraining, Flat], runtime: Annotated[train.TrainingRuntime, Flat]) -> None:
    """Train a LoRA for weights that stay as they are; run it again with the same OUT to continue."""
    train.train(config, out, runtime)


def recipe(file: tyro.conf.Positional[Path], out: Path) -> None:
    """Train the stages of a recipe, one after the other, each in its own folder of OUT; run it again to continue."""
    recipes.train_recipe(file, out)


def prepare_data(out: Path, config: Annotated[prepare.DataPreparation, Flat], dry_run: bool = False) -> None:
    """Encode captioned videos and images into a latent cache in OUT; run it again to continue.

    Args:
        out: folder of the cache
        config: what to encode, and how
        dry_run: only say which clips the sources would give, and what would be skipped
    """
    print(prepare.survey(config) if dry_run else prepare.prepare(config, out), end="")


GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "train": {"text": text, "vae": vae, "cache": cache, "transformer": transformer, "lora": lora, "recipe": recipe},
    "data": {"prepare": prepare_data},
}


def run(group: str, name: str, arguments: list[str]) -> None:
    """Parse the options of one command and do it."""
    tyro.cli(GROUPS[group][name], args=arguments, prog=f"hunyuan-video {group} {name}")
