"""Whether weights are what they should be: every name and shape, the numbers that their blocks compute, and every byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan_video import weights
from hunyuan_video.apps import checksums
from hunyuan_video.checkpoint import check_fits, diffusers, load_tokenizer, read_clip, read_llm, read_vae
from hunyuan_video.checkpoint.lazy import Lazy, State
from hunyuan_video.checkpoint.reading import WEIGHT_SUFFIXES
from hunyuan_video.checkpoint.seeing import read_vision
from hunyuan_video.checkpoint.stored import StoredTransformer, open_transformer
from hunyuan_video.models.rope import rope_table
from hunyuan_video.models.transformer import Context, DoubleStreamBlock, HunyuanVideoTransformer, SingleStreamBlock
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.transforms.lora import listed
from hunyuan_video.weights import Weights

# Between what rounding in float32 gives (2e-7 with the embedded weights, 7e-7 with random ones of the released width) and what queries and
# keys in each other's place give (0.14 and more).
BOUND = 1e-4
_GRID, _NUM_TEXT = (2, 3, 4), 8  # image tokens in time, height and width; text tokens


@dataclass(frozen=True)
class Finding:
    status: Literal["ok", "wrong", "skipped"]
    text: str

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.text}"


def verify(root: Path, *, write: bool = False) -> Iterator[Finding]:
    """Check a whole model, official or Diffusers. Everything is checked, whatever was found before.

    `write` takes the files as they are and lists them in SHA256SUMS, for a tree that did not come by `download`.

    Raises:
        FileNotFoundError: a part of the model is missing.
        FileExistsError: `write` was asked for, and there is a list.
        ValueError: something is wrong; comes after all findings.
    """
    found = weights.find(root)
    if write and (found.root / checksums.NAME).exists():
        raise FileExistsError(f"{found.root / checksums.NAME} exists already; delete it to take the files as they are now.")
    num_wrong = 0
    for finding in chain(check_names(found), check_numbers(found), () if write else check_files(found)):
        yield finding
        num_wrong += finding.status == "wrong"
    if num_wrong:
        raise ValueError(f"Not all is right with the weights in {found.root}: see above.")
    if write:
        sums = checksums.sums_of(found.root, checksums.files_under(found.root))
        checksums.write(found.root, sums)
        yield Finding("ok", f"files: {len(sums)} are now listed in {found.root / checksums.NAME}")


def check_names(found: Weights) -> Iterator[Finding]:
    """Every name and shape of every part, as strictly as loading takes them; the tensors stay on disk."""
    parts: dict[str, Callable[[], int]] = {
        "transformer": lambda: len(_open(found).state),
        "vae": lambda: _fitting_vae(found.vae),
        "text_encoder": lambda: _fitting_encoder(found.text_encoder, read_llm),
        "text_encoder_2": lambda: _fitting_encoder(found.text_encoder_2, read_clip),
    }
    if found.sees:
        parts["vision"] = lambda: _fitting_encoder(found.text_encoder, read_vision)
    for name, count in parts.items():
        try:
            yield Finding("ok", f"{name}: all {count()} tensors have their names and shapes")
        except (ValueError, FileNotFoundError, ImportError) as error:
            yield Finding("wrong", f"{name}: {error}")


def _open(found: Weights) -> StoredTransformer:
    stored = open_transformer(found.transformer, found.load_key)
    with torch.device("meta"):
        check_fits(HunyuanVideoTransformer(stored.config), stored.state, found.transformer)
    return stored


def _fitting_vae(folder: Path) -> int:
    config, state = read_vae(folder)
    with torch.device("meta"):
        check_fits(CausalVAE(config), state, folder)
    return len(state)


def _fitting_encoder(folder: Path, read: Callable[[Path], tuple[nn.Module, dict[str, Lazy]]]) -> int:
    model, state = read(folder)
    check_fits(model, state, folder)
    load_tokenizer(folder)
    return len(state)


def check_numbers(found: Weights) -> Iterator[Finding]:
    """The first block of each kind beside Diffusers', where that is installed."""
    try:
        stored = _open(found)
    except (ValueError, FileNotFoundError, ImportError):
        yield Finding("skipped", "blocks: the transformer could not be read")
        return
    try:
        differences = block_differences(stored)
    except ImportError:
        yield Finding("skipped", "blocks: Diffusers is not installed to compare them with; `pip install diffusers` adds this check")
        return
    for name, difference in differences.items():
        is_close = difference <= BOUND  # and not NaN
        yield Finding("ok" if is_close else "wrong", f"{name} block: differs from Diffusers' by {difference:.1e}, and may by {BOUND:.0e}")


@torch.no_grad()
def block_differences(stored: StoredTransformer) -> dict[str, float]:
    """How far the first dual-stream and the first single-stream block are from Diffusers', with the stored weights in float32 and a few
    random tokens: the largest difference, beside the largest change that the block makes to its tokens.

    One block at a time is in memory: of the released model, 1.4 GB.

    Raises:
        ImportError: Diffusers is not installed.
    """
    from diffusers.models.transformers.transformer_hunyuan_video import (
        HunyuanVideoRotaryPosEmbed,
        HunyuanVideoSingleTransformerBlock,
        HunyuanVideoTransformerBlock,
    )

    config, generator = stored.config, torch.Generator().manual_seed(0)
    sizes = torch.Size(_GRID).numel(), _NUM_TEXT, 1
    img, txt, vec = (torch.randn(1, size, config.hidden_size, generator=generator) for size in sizes)
    rope = rope_table(_GRID, config.rope_dims, config.rope_theta, torch.device("cpu"))
    ctx = Context(F.silu(vec), (), rope, None)
    their_rope = HunyuanVideoRotaryPosEmbed(1, 1, [*config.rope_dims], config.rope_theta)(torch.zeros(1, 1, *_GRID))
    tokens = torch.cat([img, txt], dim=1)

    def ours(kind: type[DoubleStreamBlock | SingleStreamBlock], state: State) -> Tensor:
        block = _block(lambda: kind(config), state)
        if isinstance(block, DoubleStreamBlock):
            return torch.cat(block(img, txt, ctx), dim=1)
        return block(tokens, ctx._replace(rope=rope.with_text(_NUM_TEXT)))

    def theirs(kind: type[nn.Module], state: State) -> Tensor:
        block = _block(lambda: kind(config.num_heads, config.head_dim, mlp_ratio=config.mlp_ratio), diffusers.from_official(state))
        return torch.cat(block(img, txt, vec[:, 0], None, their_rope), dim=1)

    found = {}
    weights_of = stored.expanded()
    for name, prefix, our_kind, their_kind in (
        ("dual-stream", "double_blocks.0.", DoubleStreamBlock, HunyuanVideoTransformerBlock),
        ("single-stream", "single_blocks.0.", SingleStreamBlock, HunyuanVideoSingleTransformerBlock),
    ):
        state = {key: tensor for key, tensor in weights_of.items() if key.startswith(prefix)}
        expected = theirs(their_kind, state)
        found[name] = ((ours(our_kind, state) - expected).abs().max() / (expected - tokens).abs().max()).item()
    return found


def _block(build: Callable[[], nn.Module], state: State) -> nn.Module:
    """A block with its tensors, whose names begin with the place and number of the block."""
    with torch.device("meta"):
        block = build()
    tensors = {name.split(".", 2)[2]: tensor.to(torch.device("cpu"), torch.float32) for name, tensor in state.items()}
    block.load_state_dict(tensors, strict=True, assign=True)
    return block.eval()


def check_files(found: Weights) -> Iterator[Finding]:
    """Every file of the list in the tree, and every weight file in use on the list."""
    sums = checksums.read(found.root)
    if not sums:
        yield Finding(
            "skipped",
            f"files: there is no {found.root / checksums.NAME} to check them against; `hunyuan-video download` compares official weights "
            "with the hub's and makes it, `hunyuan-video verify --write` takes any as they are",
        )
        return
    present = [name for name in sums if (found.root / name).is_file()]
    actual = checksums.sums_of(found.root, present)
    wrong = {
        "are missing": [name for name in sums if name not in actual],
        "have another SHA-256": [name for name in present if actual[name] != sums[name]],
        "are used and not listed": [name for name in _weight_files(found) if name not in sums],
    }
    for what, names in wrong.items():
        if names:
            yield Finding("wrong", f"files: {len(names)} {what}: {listed(names)}")
    if not any(wrong.values()):
        yield Finding("ok", f"files: all {len(sums)} have the SHA-256 in {checksums.NAME}")


def _weight_files(found: Weights) -> list[str]:
    """What the four parts are read from, by path from the root."""
    parts = (found.transformer, found.vae, found.text_encoder, found.text_encoder_2)
    files = [file for part in parts for file in ([part] if part.is_file() else sorted(part.iterdir()))]
    files += found.transformer.parent.glob(f"{found.transformer.stem}_map.*")  # the scales of 8-bit weights
    return [file.relative_to(found.root).as_posix() for file in files if file.suffix in WEIGHT_SUFFIXES]
