"""Nodes that say which weights, and which LoRAs in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from comfy_api.latest import io  # pyright: ignore[reportMissingImports]

from hunyuan_video import weights
from hunyuan_video.config import Attention, DType, Runtime, Speed, require
from hunyuan_video.request import Adapter, Strengths

from . import host
from .pipelines import Model, ModelType, version

EMBEDDED = "embedded miniature"
OWN = "the weights' own"
_EIGHT_BITS = {"off": {}, "weights": {"fp8": True}, "weights and products": {"fp8_matmul": True}}
OFFLOAD = ["auto", "none", "models", "blocks"]


def weights_input() -> io.Combo.Input:
    return io.Combo.Input(
        "weights",
        options=[EMBEDDED, *host.weights_folders()],
        default=EMBEDDED,
        tooltip="A folder in models/hunyuan_video with a whole model: the official tree, or Diffusers' folder. The embedded miniature comes with the package.",  # noqa: E501
    )


def speed_input() -> io.Combo.Input:
    return io.Combo.Input(
        "speed",
        options=list(get_args(Speed)),
        default="exact",
        tooltip="Faster ones leave out what changes little, for another video, near the exact one. It takes no loading to change.",
    )


def offload_input() -> io.Combo.Input:
    return io.Combo.Input(
        "offload",
        options=OFFLOAD,
        default="auto",
        tooltip="What leaves the GPU while it does not work: nothing, whole models, or single blocks. auto takes the fastest that fits.",
    )


def find(name: str, transformer: str = OWN, *, picture: bool = False) -> weights.Weights:
    """Raises a ValueError for what is not there, and as `weights.find`."""
    root = weights.EMBEDDED if name == EMBEDDED else chosen("weights", name, host.weights_folders())
    other = None if transformer == OWN else chosen("transformer", transformer, host.transformers())
    return weights.find(root, other, picture=picture)


def chosen(what: str, name: str, there: Mapping[str, Path]) -> Path:
    """The file or folder of that name: a workflow from elsewhere names none by its path."""
    known = f"there are {', '.join(there)}" if there else "there is none"
    require(name in there, f"{what} is {name!r}, which is not here; {known}.")
    return there[name]


class Load(io.ComfyNode):
    """Which weights, and how to compute with them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoLoad",
            display_name="HunyuanVideo Load",
            category=host.CATEGORY,
            description="Says which weights make the video, and how to compute. They are loaded when they are first used.",
            inputs=[
                weights_input(),
                io.Combo.Input(
                    "transformer",
                    options=[OWN, *host.transformers()],
                    default=OWN,
                    tooltip="Another transformer than the folder's: any file of models/diffusion_models, also GGUF and FP8.",
                ),
                io.Boolean.Input(
                    "image_to_video",
                    default=False,
                    tooltip="Of a folder with both official models, take the one that begins every video with a picture.",
                ),
                io.Combo.Input("dtype", options=list(get_args(DType)), default="auto", tooltip="What the transformer computes in."),
                offload_input(),
                io.Combo.Input(
                    "fp8",
                    options=list(_EIGHT_BITS),
                    default="off",
                    tooltip="Keep the transformer's blocks in 8 bits, half the memory; or multiply in 8 bits, too, on GPUs that can.",
                ),
                io.Boolean.Input("text_fp8", default=False, tooltip="Keep the language model's layers in 8 bits."),
                io.Combo.Input(
                    "attention",
                    options=list(get_args(Attention)),
                    default="auto",
                    tooltip="The kernel; auto measures which exact one is the fastest here.",
                ),
                speed_input(),
            ],
            outputs=[ModelType.Output(display_name="model")],
        )

    @classmethod
    def execute(
        cls,
        weights: str,
        transformer: str = OWN,
        image_to_video: bool = False,
        dtype: str = "auto",
        offload: str = "auto",
        fp8: str = "off",
        text_fp8: bool = False,
        attention: str = "auto",
        speed: str = "exact",
    ) -> io.NodeOutput:
        require(fp8 in _EIGHT_BITS, f"fp8 is {fp8!r}; it must be one of {', '.join(_EIGHT_BITS)}.")
        own = {"dtype": dtype, "offload": offload, "text_fp8": text_fp8, "attention": attention, "speed": speed}
        runtime = Runtime(**own | _EIGHT_BITS[fp8])  # pyright: ignore[reportArgumentType] (it checks each value)
        return io.NodeOutput(Model(find(weights, transformer, picture=image_to_video), runtime))


class Lora(io.ComfyNode):
    """One more LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoLora",
            display_name="HunyuanVideo LoRA",
            category=host.CATEGORY,
            description="Has a LoRA of any dialect act in the model; several follow each other.",
            inputs=[
                ModelType.Input("model"),
                io.Combo.Input("lora", options=list(host.loras()), tooltip="A file of models/loras."),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How strongly it acts; 0 is not at all."),
            ],
            outputs=[ModelType.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora: str, **others: object) -> object:
        """Another one for a file that was trained on."""
        return version(chosen("lora", lora, host.loras()))

    @classmethod
    def execute(cls, model: Model, lora: str, strength: float = 1.0) -> io.NodeOutput:
        adapter = Adapter(chosen("lora", lora, host.loras()), Strengths(strength))
        return io.NodeOutput(replace(model, adapters=(*model.adapters, adapter)))
