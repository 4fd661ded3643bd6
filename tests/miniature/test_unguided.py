"""What the recipe of version 2 starts from."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from conftest import TINY, randomize
from safetensors.torch import save_file

from hunyuan_video.checkpoint import load_transformer
from hunyuan_video.models.transformer import HunyuanVideoTransformer

unguided = runpy.run_path(str(Path(__file__).parents[2] / "recipes/tiny/unguided.py"))["unguided"]


@torch.no_grad()
def test_without_its_guidance_embedding_a_model_is_what_it_was_at_the_scale_1(tmp_path: Path):
    model = randomize(HunyuanVideoTransformer(TINY), std=0.15)
    save_file(model.state_dict(), tmp_path / "guided.safetensors")
    unguided(tmp_path / "guided.safetensors", tmp_path / "plain.safetensors")
    plain = load_transformer(tmp_path / "plain.safetensors", torch.float32, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    x, states, pooled = (torch.randn(shape, generator=draw) for shape in ((1, 4, 3, 4, 4), (1, 5, TINY.text_dim), (1, TINY.pooled_dim)))
    mask, t = torch.ones(1, 5, dtype=torch.bool), torch.full((1,), 600.0)
    expected = model(x, t, model.condition(states, mask, pooled, torch.full((1,), 1000.0)))
    torch.testing.assert_close(plain(x, t, plain.condition(states, mask, pooled)), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(SystemExit, match="has no guidance embedding"):
        unguided(tmp_path / "plain.safetensors", tmp_path / "again.safetensors")
