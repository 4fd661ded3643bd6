"""What does not depend on the latents, for all steps of a video at once: refined text, and the modulation of every block.

Of the 13B's weights 29 % serve nothing else. As vectors they are multiplied by once a step; as one product for all steps the weights are
read once, and are then not needed until the next video. So they stay where they are (`early_parts`) and visit the device alone.

Inside the `with` block the conditioning vector of a step *is* all its modulations, one after the other, and the layer that would make some
of them only cuts them out.

Letters: B batch, L text tokens, D hidden size, R rows of modulation, W numbers of all modulations together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.memory import is_sharded
from hunyuan_video.models.transformer import Condition, HunyuanVideoTransformer, Modulation

Bring = Callable[[nn.Module], AbstractContextManager[None]]  # a module to the device, while the block lasts
Prepare = Callable[..., Condition]  # as `model.condition`, with the branch of guidance before its arguments


def modulations(model: HunyuanVideoTransformer) -> dict[str, int]:
    """The layers that turn the conditioning vector into modulations, by name, and how many shifts, scales and gates each makes."""
    found = {f"{name}.linear": module.num_chunks for name, module in model.named_modules() if isinstance(module, Modulation)}
    return found | {"final_layer.adaLN_modulation.1": 2}


def early_parts(model: HunyuanVideoTransformer) -> list[nn.Module]:
    """What a video needs before its first step, and not again; nothing of a model whose weights are spread over ranks, which are gathered
    only when a block works."""
    if any(is_sharded(parameter) for parameter in model.parameters()):
        return []
    embedders = [part for part in (model.txt_in, model.vector_in, model.guidance_in) if part is not None]
    return [*map(model.get_submodule, modulations(model)), *embedders]


def early_tensors(model: HunyuanVideoTransformer) -> dict[str, Tensor]:
    """All that these parts have, by name."""
    early = {id(tensor) for part in early_parts(model) for tensor in (*part.parameters(), *part.buffers())}
    return {name: tensor for name, tensor in (*model.named_parameters(), *model.named_buffers()) if id(tensor) in early}


class Cut(nn.Module):
    """Stands for a layer: takes what it would make out of all that is made ahead."""

    def __init__(self, start: int, stop: int):
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, vec: Float[Tensor, "B R W"]) -> Float[Tensor, "B R w"]:
        return vec[..., self.start : self.stop]


class Refined(nn.Module):
    """Stands for the refiner: gives the text that was refined ahead, of each branch of guidance by its context."""

    def __init__(self, embed: Callable[..., tuple[Tensor, Tensor]]):
        super().__init__()
        self.embed = embed
        self.known: dict[tuple[int, float], Tensor] = {}

    def forward(self, x: Float[Tensor, "B L D"], context: Float[Tensor, "B D"], t: Float[Tensor, " B"], *_: Any) -> Float[Tensor, "B L D"]:
        return _looked_up(self.known, id(context), t).clone()  # blocks may change what they are given


@contextmanager
def ahead(model: HunyuanVideoTransformer, ts: Sequence[Tensor], clean_frames: Collection[int], bring: Bring) -> Iterator[Prepare]:
    """Inside, the model knows the noise levels `ts` (each [B], in 0…1000) and no others, for the conditions that the given function
    makes: as `model.condition` does, and everything else ahead. The latent frames `clean_frames` will be given as they are.

    Raises:
        ValueError: when it is called, another noise level comes.
    """
    if not early_parts(model):
        yield lambda branch, *inputs: replace(model.condition(*inputs), branch=branch)
        return
    layers, refiner = {name: model.get_submodule(name) for name in modulations(model)}, model.txt_in
    refined, known = Refined(refiner.embed), dict[tuple[int, float], Tensor]()
    embedders = nn.ModuleList([part for part in (refiner, model.vector_in, model.guidance_in) if part is not None])

    def prepare(branch: int, *inputs: Any) -> Condition:
        with bring(embedders):
            condition = replace(model.condition(*inputs), branch=branch)
            for level, t in {_level(t): t for t in ts}.items():
                refined.known[id(condition.context), level] = refiner(condition.txt, condition.context, t, condition.mask)
        vectors = torch.stack([HunyuanVideoTransformer.conditioning(model, t, condition, clean_frames) for t in ts])
        made = []
        for layer in layers.values():
            with bring(layer):
                made.append(layer(vectors))
        known.update(zip([(branch, _level(t)) for t in ts], torch.cat(made, dim=-1), strict=True))
        return condition

    def conditioning(t: Float[Tensor, " B"], condition: Condition, clean_frames: Collection[int]) -> Float[Tensor, "B R W"]:
        return _looked_up(known, condition.branch, t)

    start = 0
    try:
        model.txt_in = refined  # pyright: ignore[reportAttributeAccessIssue]
        for name, num_chunks in modulations(model).items():
            stop = start + num_chunks * model.config.hidden_size
            model.set_submodule(name, Cut(start, stop))
            start = stop
        model.conditioning = conditioning
        yield prepare
    finally:
        del model.conditioning
        model.txt_in = refiner
        for name, layer in layers.items():
            model.set_submodule(name, layer)


def _level(t: Float[Tensor, " B"]) -> float:
    return 0.0 if t.is_meta else t[0].item()  # on the meta device all are alike


def _looked_up(known: Mapping[tuple[int, float], Tensor], whose: int, t: Float[Tensor, " B"]) -> Tensor:
    found = known.get((whose, _level(t)))
    if found is None:
        raise ValueError(f"A step has the noise level {_level(t):g}, which was not among those known before the first one.")
    return found
