"""The node that makes latents."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io  # pyright: ignore[reportMissingImports]

from hunyuan_video.config import MAX_SEED, Solver
from hunyuan_video.request import Request

from . import host
from .pipelines import Model, ModelType, as_usual, loaded, pipeline
from .values import Record, RecordType, RequestType, to_latent

_OPEN = {"width": 0, "height": 0, "num_frames": 0, "num_steps": 0, "shift": 0.0, "guidance": -1.0, "cfg_scale": 0.0}
"""how a field says that it is as the weights were made for: ComfyUI's are never empty"""


def size_inputs() -> list[io.Int.Input]:
    own = "0: what the weights were made for."
    return [
        io.Int.Input("width", default=0, min=0, max=8192, step=16, tooltip=own),
        io.Int.Input("height", default=0, min=0, max=8192, step=16, tooltip=own),
        io.Int.Input("num_frames", default=0, min=0, max=10_001, tooltip=f"4n + 1; 1 is a picture. {own}"),
        io.Int.Input("num_steps", default=0, min=0, max=1000, tooltip=own),
    ]


def seed_input() -> io.Int.Input:
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip="The same one makes the same video.")


def cfg_input() -> io.Float.Input:
    return io.Float.Input(
        "cfg_scale",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.1,
        tooltip="Guidance by two passes, with the negative prompt; 1 is off. 0: as the weights were made for.",
    )


def asking(request: Request, **settings: Any) -> Request:
    """The request with these settings; those that are open stay as they are."""
    given = {name: value for name, value in settings.items() if name not in _OPEN or value != _OPEN[name]}
    return replace(request, sampling=replace(request.sampling, **given))


@as_usual
def sampled(model: Model, request: Request) -> Record:
    """The finished latents of a request. ComfyUI hears of each step, and sees it; and when the user cancels, nothing goes on.

    Raises:
        ValueError: the request does not fit the weights.
        comfy.model_management.InterruptProcessingException: the user has cancelled.
    """
    request = replace(request, adapters=model.adapters)
    model.weights.check(request)
    shows, pipe, bar = loaded(model), pipeline(model), host.ProgressBar(1)
    with closing(pipe.steps(request)) as steps:  # pyright: ignore[reportArgumentType] (a generator)
        for step in steps:
            host.raise_if_cancelled()
            if step.stage != "denoise" or step.latents is None:
                continue
            picture = shows.picture(step)
            bar.update_absolute(step.step, step.total, None if picture is None else host.preview(picture))
            if step.step == step.total:
                return Record(step.provenance, step.latents.cpu())
    raise AssertionError("A video has a last step.")


class Sample(io.ComfyNode):
    """From noise to latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        own = "as the weights were made for."
        return io.Schema(
            node_id="HunyuanVideoSample",
            display_name="HunyuanVideo Sample",
            category=host.CATEGORY,
            description="Makes the video's latents. What is left at 0 (guidance: -1) is as the weights were made for.",
            inputs=[
                ModelType.Input("model"),
                RequestType.Input("request"),
                seed_input(),
                *size_inputs(),
                io.Float.Input("shift", default=0.0, min=0.0, max=100.0, step=0.1, tooltip=f"Flow shift: larger is more layout. 0: {own}"),
                io.Float.Input("guidance", default=-1.0, min=-1.0, max=100.0, step=0.1, tooltip=f"Embedded guidance. -1: {own}"),
                cfg_input(),
                io.Combo.Input("solver", options=list(get_args(Solver)), default="euler", tooltip="How a step is taken."),
                io.Boolean.Input("loop", default=False, tooltip="Have the end lead to the beginning."),
            ],
            outputs=[io.Latent.Output(display_name="latent"), RecordType.Output(display_name="record")],
        )

    @classmethod
    def execute(cls, model: Model, request: Request, seed: int = 0, **settings: Any) -> io.NodeOutput:
        record = sampled(model, asking(request, seed=seed, **settings))
        return io.NodeOutput(to_latent(record.latents, loaded(model).pipe.vae.config), record)
