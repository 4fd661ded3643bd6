"""`hunyuan-video train …` and `hunyuan-video data …`: one command for each thing that is trained or prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from hunyuan_video.apps.parse import deferred, parse
from hunyuan_video.distributed.world import is_main_process, resolve_device, world_size

try:
    from hunyuan_video.memory import available_memory
    from hunyuan_video.miniature import cache as world_cache
    from hunyuan_video.miniature import text as miniature_text
    from hunyuan_video.miniature import vae as miniature_vae
    from hunyuan_video.training import prepare, settings, train
    from hunyuan_video.training import recipe as recipes
    from hunyuan_video.training.dataset import MANIFEST, AnyCache, Bucket, LatentCache, PlannedCache
    from hunyuan_video.training.plan import check
    from hunyuan_video.training.seeing import longest_text, released
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("hunyuan_video"):
        raise
    raise ImportError(
        f"Training needs the package {error.name}, which is not installed: pip install 'hunyuan-video[train]', or '.[train]' in a clone."
    ) from error

Flat = tyro.conf.arg(name="")


def text(out: Path, config: Annotated[miniature_text.TextTraining, Flat]) -> None:
    """Train the miniature's tokenizers and text encoders; OUT is the folder they are written to."""
    miniature_text.train(config, out)


def vae(out: Path, config: Annotated[miniature_vae.MiniatureTraining, Flat]) -> None:
    """Train a VAE, by default the miniature's; run it again with the same OUT and settings to continue."""
    miniature_vae.train(config, out)


def cache(out: Path, config: Annotated[world_cache.WorldCache, Flat]) -> None:
    """Render clips and store their latents and text states in OUT; run it again to continue."""
    world_cache.prepare_world(config, out)


def transformer(
    out: Path, config: Annotated[settings.TransformerTraining, Flat], runtime: Annotated[settings.TrainingRuntime, Flat], plan: bool = False
) -> None:
    """Train all weights of the diffusion transformer, from nothing or from weights; run it again with the same OUT to continue.

    Args:
        out: folder of the run
        config: what to train
        runtime: how
        plan: only say what memory it takes
    """
    _train(out, config, runtime, plan)


def lora(
    out: Path,
    config: Annotated[settings.LoraTraining, Flat],
    runtime: Annotated[settings.TrainingRuntime, Flat],
    data: Path | None = None,
    buckets: tuple[str, ...] = (),
    plan: bool = False,
) -> None:
    """Train a LoRA for weights that stay as they are; run it again with the same OUT to continue, perhaps with other clips in DATA.

    Args:
        out: folder of the run
        config: what to train
        runtime: how
        data: captioned videos and images to encode first, into the cache (see `hunyuan-video data prepare`, which knows more settings)
        buckets: sizes of the clips made of DATA, as FRAMESxHEIGHTxWIDTH, such as 33x128x128 1x128x128 (default: those of the cache, or of a
            new one the size that the weights are made for)
        plan: only say what memory it takes, with these weights and with the 13B, and what of DATA it sees
    """
    if data is None:
        if buckets:
            raise ValueError("--buckets says to which sizes clips are cut; name them with --data, too.")
        _train(out, config, runtime, plan)
        return
    if world_size() > 1:
        raise ValueError("--data works in one process only; encode first, with `hunyuan-video data prepare`, and leave it out.")
    if not config.start.is_dir():
        raise ValueError(f"--data needs a weights root, with a VAE and text encoders, but --start is {config.start}.")
    wanted = prepare.DataPreparation(data, buckets, weights=config.start, device=runtime.device)
    wanted = prepare.as_before(wanted, config.cache)
    if not plan:
        # A folder of one's own clips is what the run is about: what is gone from it counts no longer.
        print(prepare.prepare(wanted, config.cache, may_shrink=True), end="")
    _train(out, config, runtime, plan, wanted)


def _train(
    out: Path,
    config: settings.TransformerTraining | settings.LoraTraining,
    runtime: settings.TrainingRuntime,
    plan: bool,
    data: prepare.DataPreparation | None = None,
) -> None:
    if plan:
        text = planned(config, runtime, data)
    else:
        text = "\n".join(map(str, train.train(config, out, runtime, None if data is None else prepare.clips(data.source))))
    if is_main_process():
        print(text)


def planned(
    config: settings.TransformerTraining | settings.LoraTraining,
    runtime: settings.TrainingRuntime,
    data: prepare.DataPreparation | None = None,
) -> str:
    """What is seen of the data, the memory of a training line by line, and of a LoRA what the 13B takes with the same settings.

    Raises:
        ValueError: it does not fit, with the numbers; or nothing of the data can be used.
    """
    device = resolve_device(runtime.device)
    seen = None if data is None else prepare.survey(data, config.cache)
    if seen is not None:
        seen.check()
    cache: AnyCache | None = None
    if seen is not None and seen.missing:
        longest = longest_text(config.start, train.sizes_of(config, None)[0])
        cache = PlannedCache({Bucket.parse(bucket): count for bucket, count in seen.buckets.items()}, longest)
    elif (config.cache / MANIFEST).exists():
        cache = LatentCache(config.cache)
    plan, available = train.memory_plan(config, runtime, world_size(), device, cache), available_memory(device)
    check(plan, available)
    text = "" if seen is None else f"{seen.line}\n"
    text += f"{plan.table()}\nFree now on {device}: {available / 1e9:.2f} GB."
    if cache is None:
        text += (
            f"\nThere is no cache in {config.cache} yet: counted with samples of {config.token_budget:,} tokens, which yours need not be."
        )
    if isinstance(config, settings.LoraTraining):
        whole = train.memory_plan(config, runtime, world_size(), device, cache, released(train.sizes_of(config, cache)[0]))
        text += f"\nHunyuanVideo-13B would take {whole.total / 1e9:.1f} GB with these settings; docs/training-memory.md lists others."
    return text


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
    if not dry_run:
        print(prepare.prepare(config, out), end="")
        return
    seen = prepare.survey(config)
    print(seen.report, end="", flush=True)
    seen.check()


GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "train": {"text": text, "vae": vae, "cache": cache, "transformer": transformer, "lora": lora, "recipe": recipe},
    "data": {"prepare": prepare_data},
}


def run(group: str, name: str, arguments: list[str]) -> None:
    """Parse the options of one command and do it."""
    parse(deferred(GROUPS[group][name]), arguments, f"hunyuan-video {group} {name}")()
