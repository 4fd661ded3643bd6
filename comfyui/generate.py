"""All in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io  # pyright: ignore[reportMissingImports]
from torch import Tensor

from hunyuan_video.config import Runtime
from hunyuan_video.request import Request

from . import host
from .decode import decoded, outputs, shown
from .load import find, offload_input, speed_input, weights_input
from .pipelines import Model
from .sample import asking, cfg_input, sampled, seed_input, size_inputs
from .values import picture_of


class Generate(io.ComfyNode):
    """A prompt to a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoGenerate",
            display_name="HunyuanVideo Generate",
            category=host.CATEGORY,
            description="Makes a video of a prompt, and perhaps of a picture that it begins with: everything in one node.",
            inputs=[
                io.String.Input("prompt", multiline=True, default="A cat walks on the grass, realistic style."),
                weights_input(),
                seed_input(),
                *size_inputs(),
                offload_input(),
                speed_input(),
                io.String.Input("negative_prompt", multiline=True, default="", tooltip="Acts while cfg_scale is above 1."),
                cfg_input(),
                io.Image.Input("image", optional=True, tooltip="What the video begins with, for weights that were trained for it."),
            ],
            outputs=outputs(),
        )

    @classmethod
    def execute(
        cls,
        prompt: str,
        weights: str,
        seed: int = 0,
        offload: str = "auto",
        speed: str = "exact",
        negative_prompt: str = "",
        image: Tensor | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        runtime = Runtime(offload=offload, speed=speed)  # pyright: ignore[reportArgumentType] (it checks both)
        model = Model(find(weights, picture=image is not None), runtime)
        negative, picture = negative_prompt if negative_prompt.strip() else None, None if image is None else picture_of(image)
        request = Request(prompt, negative_prompt=negative, image=picture)
        return shown(*decoded(model, sampled(model, asking(request, seed=seed, **settings))))
