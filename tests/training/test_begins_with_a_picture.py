"""Training the official image-to-video models: what is learned begins as what is sampled does, in both ways to tell of a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training.cache_files import save_cache

from hunyuan_video import HunyuanVideo
from hunyuan_video.apps import train as train_app
from hunyuan_video.beginning import Beginning
from hunyuan_video.buckets import sizes
from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.config import Conditioning, FullSampling
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.progressive import Stage
from hunyuan_video.request import Adapter, Picture
from hunyuan_video.training import prepare
from hunyuan_video.training.dataset import Bucket, LatentCache, PlannedCache
from hunyuan_video.training.objectives import Objective, add_noise, velocity
from hunyuan_video.training.plan import MicroBatch, predict
from hunyuan_video.training.run import random_generator
from hunyuan_video.training.seeing import released
from hunyuan_video.training.settings import LoraTraining, TrainingRuntime
from hunyuan_video.training.train import train

BOTH: tuple[Conditioning, ...] = ("first_frame", "latent_concat")
ONE = FullSampling(height=32, width=32, num_frames=5, num_steps=2, seed=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Two clips whose frames have nothing in common, so that each has other latents alone than among the others."""
    folder, draw = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / f"{name}.txt").write_text(f"clip {name}", encoding="utf-8")
        for number in range(5):
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def caches(image_tree, source, tmp_path_factory) -> dict[Conditioning, Path]:
    made = {told: tmp_path_factory.mktemp(told) / "cache" for told in BOTH}
    for told, folder in made.items():
        prepare.prepare(prepare.DataPreparation(source, buckets=("5x32x32",), weights=image_tree(told), device="cpu"), folder)
    return made


@pytest.fixture(scope="module")
def pipes(image_tree) -> dict[Conditioning, HunyuanVideo]:
    return {told: HunyuanVideo.load(image_tree(told)) for told in BOTH}


@pytest.fixture
def config(image_tree, caches) -> Callable[[Conditioning], LoraTraining]:
    def of(told: Conditioning) -> LoraTraining:
        return LoraTraining(
            cache=caches[told], start=image_tree(told), image_to_video=1.0, num_steps=3, rank=2, warmup_steps=1,
            learning_rate=5e-2, token_budget=16, dtype="float32", save_dtype="float32",
        )  # fmt: skip

    return of


def first_frame(source: Path) -> np.ndarray:
    """Of a clip, as it is cut and decoded for training."""
    item = prepare.media.find_items(source)[0]
    (clip,) = prepare.media.read_clips(item, prepare.media.plan(item, [Bucket(5, 32, 32)], 24.0, 1))
    return clip[0]


@pytest.mark.parametrize("told", BOTH)
def test_a_sample_begins_as_the_video_does_that_is_made_of_its_first_frame(pipes, caches, source, told):
    """The same picture's latents, in the same place, and the same states of the caption beside it: so the same velocity."""
    pipe, cache = pipes[told], LatentCache(caches[told])
    picture, batch = first_frame(source), cache.batch([0])
    begins = Beginning.of(pipe.encode(picture[None]), pipe.transformer.config, (0,), 1, ("first",))
    features = pipe.encode_text(["clip a"], ONE, Picture(picture))
    noisy, _ = add_noise(Objective(image_to_video=1.0, guidance=6.0), *batch[:2], random_generator(0), cache.told, batch.openings)
    grid = begins.on(Stage.whole(tuple(noisy.x.shape)), torch.zeros_like(noisy.x))
    x, beside = grid.held(noisy.x, 0.0), grid.beside
    condition = pipe.transformer.condition(features.states, features.mask, features.pooled, noisy.scale * 1000)
    with torch.no_grad():
        expected = pipe.transformer(x if beside is None else torch.cat([x, beside], 1), noisy.sigma * 1000, condition, grid.clean)
        torch.testing.assert_close(velocity(pipe.transformer, noisy), expected, atol=5e-3, rtol=5e-3)  # of what is kept in float16
    torch.testing.assert_close(batch.openings, begins.latents, atol=3e-4, rtol=1e-3)
    assert (batch.openings - batch.latents[:, :, :1]).abs().max() > 2e-3


def test_a_caption_that_is_left_out_is_the_empty_one_beside_a_black_picture(pipes, caches):
    batch, black = LatentCache(caches["first_frame"]).batch([0, 1]), Picture(np.zeros((30, 40, 3), np.uint8))
    expected = pipes["first_frame"].encode_text([""], ONE, black)
    for row in range(2):
        torch.testing.assert_close(batch.empty.states[row], expected.states[0], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("told", BOTH)
def test_a_lora_is_trained_beside_8_bits_that_come_and_go_and_acts_in_a_video(config, pipes, image_tree, source, told, tmp_path):
    how = TrainingRuntime(device="cpu", checkpoint_activations=True, swap_blocks=True)
    learned = train(replace(config(told), fp8=True), tmp_path / "run", how)[0]
    adapted = HunyuanVideo.load(image_tree(told), adapters=(Adapter(learned),))
    with_lora, without = (pipe("clip a", ONE, image=first_frame(source)).latents for pipe in (adapted, pipes[told]))
    assert (with_lora - without)[:, :, 1:].abs().max() > 1e-3


def test_blocks_that_come_and_go_train_the_same_bit_for_bit_and_validate_the_same(config, tmp_path):
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "picture.png")
    (tmp_path / "prompts.txt").write_text("a cat", encoding="utf-8")
    sizes = {f"validation_{name}": value for name, value in (("frames", 5), ("height", 32), ("width", 32), ("num_steps", 1))}
    shown = {"validation_prompts": tmp_path / "prompts.txt", "validation_image": tmp_path / "picture.png", "validation_every": 2} | sizes
    made = []
    for swaps in (False, True):
        how = TrainingRuntime(device="cpu", checkpoint_activations=True, swap_blocks=swaps, **shown)
        file = train(config("first_frame"), tmp_path / str(swaps), how)[0]
        made.append((file.read_bytes(), len([*(tmp_path / str(swaps) / "validation").rglob("*.mp4")])))
    assert made[0] == made[1] and made[0][1] == 2


def test_validation_without_a_picture_is_refused(config, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat", encoding="utf-8")
    with pytest.raises(ValueError, match="name one with --validation-image"):
        train(config("first_frame"), tmp_path / "run", TrainingRuntime(device="cpu", validation_prompts=tmp_path / "prompts.txt"))


# --- What does not fit ---


@pytest.mark.parametrize(("told", "other"), [BOTH, BOTH[::-1]])
def test_a_cache_for_the_other_way_is_refused(config, caches, told, other, tmp_path):
    with pytest.raises(ValueError, match=rf"told of pictures by '{told}', but the clips in the cache begin with pictures as '{other}'"):
        train(replace(config(told), cache=caches[other]), tmp_path / "run")


def test_a_cache_without_pictures_is_refused(config, official_tree, tmp_path):
    encoder = load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", torch.float32)
    cache = save_cache(tmp_path / "cache", encoder, [(2, 4, 4)])
    with pytest.raises(ValueError, match="the clips in the cache begin with no pictures: make it with these weights"):
        train(replace(config("first_frame"), cache=cache), tmp_path / "run")


@pytest.mark.parametrize(("told", "shares"), [("first_frame", {"image_to_video": 0.5}), ("latent_concat", {"first_and_last": 1.0})])
def test_clips_that_are_to_begin_without_a_picture_are_refused(config, told, shares, tmp_path):
    with pytest.raises(ValueError, match="begin every video with one; give image_to_video 1"):
        train(replace(config(told), **{"image_to_video": 0.0} | shares), tmp_path / "run")


def test_images_are_refused(image_tree, source, tmp_path):
    with pytest.raises(ValueError, match=r"bucket 1x32x32 is for images, but the weights in .* make videos that begin with one"):
        prepare.prepare(prepare.DataPreparation(source, buckets=("1x32x32", "5x32x32"), weights=image_tree()), tmp_path / "cache")


def test_blocks_that_come_and_go_ask_for_activations_that_are_computed_twice():
    with pytest.raises(ValueError, match="swap_blocks needs checkpoint_activations"):
        TrainingRuntime(swap_blocks=True)


# --- The memory ---


@pytest.mark.parametrize("told", BOTH)
def test_the_plan_counts_the_tokens_of_the_picture_and_compares_with_the_13b_of_its_kind(config, image_tree, source, told, monkeypatch):
    asked = replace(config(told), cache=Path("none"))
    data, planned_for = prepare.DataPreparation(source, buckets=("5x32x32",), weights=image_tree(told)), []
    monkeypatch.setattr(train_app, "released", lambda sizes: planned_for.append(released(sizes)) or sizes)
    monkeypatch.setattr(train_app, "PlannedCache", lambda counts, longest: planned_for.append(longest) or PlannedCache(counts, longest))
    assert "HunyuanVideo-13B would take" in train_app.planned(asked, TrainingRuntime(device="cpu"), data)
    tokens, channels = (252 + 9, 16) if told == "first_frame" else (252 + 18, 33)
    assert planned_for == [tokens, replace(TransformerConfig(), in_channels=channels)]


@pytest.mark.slow  # ten seconds each on an idle core
@pytest.mark.parametrize(("in_channels", "text_tokens"), [(16, 144 + 252), (33, 288 + 252)])
def test_the_13b_learns_129_frames_at_360p_in_24_gb(in_channels, text_tokens):
    """At the official size with the most tokens and the official rank, where Tencent's training takes 79 GB."""
    tokens = max(33 * height // 16 * width // 16 for height, width in sizes("360p"))
    plan = predict(
        released(TransformerConfig(in_channels=in_channels)),
        kind="lora",
        rank=64,
        batch=MicroBatch(1, tokens, text_tokens),
        activation_checkpointing=True,
        fp8_base=True,
        swap_blocks=True,
        clean=in_channels == 16,
    )
    assert plan.total < 24e9, plan.table()
