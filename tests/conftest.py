"""Shared by all tests: goldens, and a tiny random model of the real architecture."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imported_first  # noqa: F401
import nudge
import pytest
import torch
from chromium_here import chromium  # noqa: F401 (a fixture)
from measure import randomize
from safetensors.torch import load_file

from hunyuan_video.config import Conditioning
from hunyuan_video.models import timestep
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.weights import EMBEDDED

DATA = Path(__file__).parent / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nudge", choices=("up", "down"), help="move the last bits of exponentials, sines … as another machine might")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        if "golden" in item.fixturenames or "diffusers" in item.originalname:
            item.add_marker("parity")


def pytest_configure(config: pytest.Config) -> None:
    os.environ[nudge.VARIABLE] = config.getoption("nudge") or ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs inherit it; tests stop what they started
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # likewise under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what has been imported is no garbage, and looking through it takes half a second each time


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    with nudge.as_told():
        return (yield)


@dataclass
class Golden:
    """Tensors that the reference implementation produced, and how close one must come to them."""

    tensors: dict[str, torch.Tensor]
    info: dict[str, Any]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name.removeprefix("sd."): tensor for name, tensor in self.tensors.items() if name.startswith("sd.")}

    def check(self, actual: torch.Tensor, name: str, tolerance: str = "out") -> None:
        allowed = self.info["tolerance"][tolerance]
        torch.testing.assert_close(actual, self.tensors[name], atol=allowed["atol"], rtol=allowed["rtol"], check_dtype=False)


def load_golden(name: str) -> Golden:
    folder = DATA / "golden"
    return Golden(load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text()))


def follow_last_bits(monkeypatch: pytest.MonkeyPatch, t: torch.Tensor, table: torch.Tensor) -> None:
    """Compute with the timestep frequencies of whoever made `table` of `t`, where theirs are ours or the float32 next to it.

    The reference and Diffusers have them from a float32 `exp`, whose last bit is their machine's; at guidance 6000 it is seen in the
    table, and moves the model's output by ten times the tolerance. Anything more than that last bit stays an error.
    """
    ours, half = timestep.frequencies, table.shape[1] // 2
    near = ours(half, torch.device("cpu")).expand(3, -1).clone()
    near[1], near[2] = near[1].nextafter(torch.tensor(0.0)), near[2].nextafter(torch.tensor(torch.inf))
    angle = t[:, None, None] * near
    error = (torch.cat([angle.cos(), angle.sin()], dim=-1) - table[:, None]).abs().amax(dim=0).unflatten(-1, (2, half)).amax(dim=1)
    theirs = near.gather(0, error.argmin(dim=0, keepdim=True))[0]
    monkeypatch.setattr(timestep, "frequencies", lambda n, device: theirs if n == half else ours(n, device))


@pytest.fixture
def golden(monkeypatch):
    """A golden by its name; the last bits of the timestep frequencies are then those of the machine that made it."""
    timesteps = load_golden("timestep_embedding")
    follow_last_bits(monkeypatch, timesteps["in.t"], timesteps["out.table"])
    return load_golden


@pytest.fixture
def diffusers_transformer(monkeypatch):
    """The same transformer in Diffusers; the last bits of the timestep frequencies are then Diffusers' on this machine."""
    # Here, for a machine without Diffusers can still run the other tests.
    from diffusers.models.embeddings import get_timestep_embedding
    from diffusers_peer import transformer_peer

    t = torch.tensor([1000.0, 6000.0])
    follow_last_bits(monkeypatch, t, get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0))
    return transformer_peer


def manifest(name: str) -> dict[str, list[int]]:
    """Every tensor name and shape of a released checkpoint."""
    return json.loads((DATA / "manifests" / f"{name}.json").read_text())["tensors"]


def manifest_layers(name: str) -> set[str]:
    """The layer names of a released list."""
    return set(json.loads((DATA / "manifests" / f"{name}.json").read_text())["layers"])


def golden_config(config: dict[str, Any]) -> TransformerConfig:
    """The reference's names for sizes, in ours."""
    return TransformerConfig(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        hidden_size=config["hidden_size"],
        num_heads=config["heads_num"],
        mlp_ratio=float(config["mlp_width_ratio"]),
        num_double_blocks=config["mm_double_blocks_depth"],
        num_single_blocks=config["mm_single_blocks_depth"],
        rope_dims=tuple(config["rope_dim_list"]),
        guidance_embed=config["guidance_embed"],
        text_dim=config["text_states_dim"],
        pooled_dim=config["text_states_dim_2"],
    )


TINY = TransformerConfig(
    in_channels=4,
    out_channels=4,
    hidden_size=32,
    num_heads=2,
    num_double_blocks=1,
    num_single_blocks=2,
    rope_dims=(4, 6, 6),
    text_dim=24,
    pooled_dim=20,
)


@pytest.fixture
def tiny_transformer() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY))


@pytest.fixture(scope="session")
def official_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete `ckpts/` of a tiny random model; tests must not change it."""
    from tiny_checkpoint import save_official_tree

    return save_official_tree(tmp_path_factory.mktemp("official") / "ckpts")


@pytest.fixture(scope="session")
def made_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, made for two steps of five small frames: what is not asked for otherwise is then that."""
    root = tmp_path_factory.mktemp("small") / "ckpts"
    shutil.copytree(EMBEDDED, root)
    settings = json.loads((root / "generation_config.json").read_text(encoding="utf-8"))
    settings |= {"height": 64, "width": 64, "num_frames": 5, "num_steps": 2}
    (root / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The same of the image-to-video model: told of its picture in either way, with or without embedded guidance."""
    from tiny_checkpoint import save_official_i2v_tree

    folder = tmp_path_factory.mktemp("i2v")

    def tree(told: Conditioning = "first_frame", guided: bool = True) -> Path:
        root = folder / f"{told}-{guided}" / "ckpts"
        return root if root.exists() else save_official_i2v_tree(root, guided, concat=told == "latent_concat")

    return tree


@pytest.fixture
def vae() -> CausalVAE:
    """A tiny random VAE."""
    from tiny_checkpoint import VAE

    return randomize(CausalVAE(VAE), std=0.2)


@pytest.fixture
def reference(golden) -> CausalVAE:
    """The VAE of the golden tensors."""
    expected = golden("vae")
    vae = CausalVAE(VAEConfig.from_json(expected.info["config"]))
    vae.load_state_dict(expected.state_dict())
    return vae.requires_grad_(False)
