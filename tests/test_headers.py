"""What the start of a transformer's file tells without loading it: guidance, and on how many channels latents come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from measure import randomize
from safetensors.torch import save_file

from hunyuan_video import headers
from hunyuan_video.checkpoint.convert import Target, convert
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.weights import Weights


@pytest.fixture(scope="module", params=[4, 9])
def source(request, tmp_path_factory) -> tuple[Path, int]:
    model = randomize(HunyuanVideoTransformer(replace(TINY, in_channels=request.param, guidance_embed=request.param == 4)))
    path = tmp_path_factory.mktemp("source") / "mp_rank_00_model_states.pt"
    torch.save({"module": model.state_dict(), "ema": model.state_dict()}, path)
    return path, request.param


@pytest.mark.parametrize(
    ("target", "name"), [("official", "a.pt"), ("single-file", "a.safetensors"), ("gguf", "a.gguf"), ("fp8", "a.pt"), ("diffusers", "a")]
)
def test_every_layout_tells_its_channels_and_its_guidance(source, tmp_path, target: Target, name):
    if target == "gguf":
        pytest.importorskip("gguf", reason="the extra gguf is not installed")
    path, channels = source
    out, *_ = convert(path, tmp_path / name, target)
    found = Weights(tmp_path, out, tmp_path, tmp_path, tmp_path)
    assert found.conditioning == ("latent_concat" if channels == 9 else "text")
    assert found.embedded_guidance == (channels == 4)
    assert out.is_dir() or headers.in_channels(out) == channels


def test_comfyuis_prefix_is_no_hindrance(tmp_path):
    path = tmp_path / "hunyuan_video_image_to_video_720p_bf16.safetensors"
    save_file({"model.diffusion_model.img_in.proj.weight": torch.zeros(2, 33, 1, 2, 2)}, path)
    assert headers.in_channels(path) == 33


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4 cut short", b"GGUF orig_shape.img_in.proj.weight", b"\x10\0\0\0\0\0\0\0{}", b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]"],
)
def test_of_what_is_damaged_nothing_is_told(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert headers.in_channels(path) is None
