"""A training so small that it takes a second: one block of each kind on random latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, randomize
from safetensors.torch import save_file
from training.cache_files import save_cache

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.training.settings import TransformerTraining


@pytest.fixture(scope="session")
def cache(official_tree, tmp_path_factory) -> Path:
    """Four small videos, two longer ones and two images, encoded by the encoders of `official_tree`."""
    encoder = load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", dtype=torch.float32)
    return save_cache(tmp_path_factory.mktemp("data") / "cache", encoder, [(2, 4, 4)] * 4 + [(3, 4, 4)] * 2 + [(1, 4, 4)] * 2)


@pytest.fixture
def config(cache) -> TransformerTraining:
    return TransformerTraining(
        cache=cache,
        num_steps=4,
        token_budget=16,
        learning_rate=2e-3,
        warmup_steps=2,
        hidden_size=32,
        num_heads=2,
        num_double_blocks=1,
        num_single_blocks=1,
    )


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """Random weights without guidance embedding that fit the cache."""
    model = randomize(HunyuanVideoTransformer(replace(TINY, text_dim=16, pooled_dim=12, guidance_embed=False)))
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file(model.state_dict(), path)
    return path
