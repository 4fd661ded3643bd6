"""What each rank of the loading tests does; a module of its own, as spawned processes must be able to import it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.checkpoint.ranks import delivered
from hunyuan_video.config import Sampling
from hunyuan_video.distributed.once import once
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.weights import locate

SMALL = Sampling(height=32, width=48, num_frames=5, num_steps=2, seed=7)
CPU = torch.device("cpu")


def loaders(root: Path) -> dict[str, Callable[[], nn.Module]]:
    """Every kind of model in a tree; the transformer in another dtype than its file's, and in 8 bits."""
    found = locate(root)
    in_8_bits = found.transformer.with_name("model_fp8.pt")
    return {
        "transformer": lambda: checkpoint.load_transformer(found.transformer, torch.bfloat16, CPU),
        "8 bits": lambda: checkpoint.load_transformer(in_8_bits, torch.float32, CPU),
        "vae": lambda: checkpoint.load_vae(found.vae, torch.float32, CPU),
        "text": lambda: checkpoint.load_text_encoder(found.text_encoder, found.text_encoder_2, torch.float32),
        "absent": lambda: checkpoint.load_transformer(root / "absent.pt", torch.float32, CPU),
        "damaged": lambda: checkpoint.load_transformer(root / "damaged.pt", torch.float32, CPU),
        "another": lambda: checkpoint.load_vae(root / "another.pt", torch.float32, CPU),
    }


def everything(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers, also those that are not saved."""
    return dict([*model.named_parameters(), *model.named_buffers()])


def load(make: Callable[[], nn.Module]) -> dict[str, torch.Tensor] | str:
    try:
        return everything(make())
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"


class UnsendableError(Exception):
    """Cannot be made again of its words alone."""

    def __init__(self, what: str, why: str):
        super().__init__(f"{what}: {why}")


def fail_so() -> None:
    raise UnsendableError("the disk", "is broken")


def unreadable(model: nn.Module) -> dict[str, Lazy]:
    """A state of which rank 0 cannot read the last tensor."""

    def fail() -> torch.Tensor:
        raise ValueError("the disk is broken")

    state = {name: Lazy.of(tensor) for name, tensor in model.state_dict().items()}
    last = list(state)[-1]
    return state | {last: Lazy(state[last].shape, state[last].dtype, fail)}


def work(rank: int, world_size: int, folder: Path) -> None:
    """Load everything from this rank's own tree; the results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    results = {name: load(make) for name, make in loaders(folder / f"tree{rank}").items()}

    def fill() -> nn.Module:
        model = nn.Linear(2, 3)
        checkpoint.fill(model, delivered(unreadable(model)), folder, torch.float32, CPU)
        return model

    results["unreadable"] = load(fill)
    model = checkpoint.load_on_rank_0(locate(folder / f"tree{rank}").transformer, torch.bfloat16)
    results["devices before sharding"] = sorted({tensor.device.type for tensor in everything(model).values()})
    results["one number"] = once(lambda: rank + 5)
    results["inside another"] = once(lambda: once(lambda: rank + 6))
    pipe = HunyuanVideo.load(folder / f"tree{rank}")
    results["whole model"] = pipe.origin.model, pipe("A cat.", SMALL).latents
    try:
        once(fail_so)
    except RuntimeError as error:
        results["unsendable"] = str(error)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
