"""The node for words."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io  # pyright: ignore[reportMissingImports]

from hunyuan_video.apps.rewrite import rewriting_by
from hunyuan_video.config import RewriteMode
from hunyuan_video.request import Request
from hunyuan_video.rewriting import Rewriter

from . import host
from .values import RequestType


class Prompt(io.ComfyNode):
    """What the video shows, perhaps rewritten in the words that the model was trained on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoPrompt",
            display_name="HunyuanVideo Prompt",
            category=host.CATEGORY,
            description="What the video is to show. Short or Chinese prompts can be rewritten first.",
            inputs=[
                io.String.Input("prompt", multiline=True, default="A cat walks on the grass, realistic style."),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    tooltip="What to steer away from while cfg_scale is above 1. Empty: what the weights say.",
                ),
                io.Combo.Input(
                    "rewrite",
                    options=["off", *get_args(RewriteMode)],
                    default="off",
                    tooltip="normal: to be understood faithfully; master: to look its best.",
                ),
                io.String.Input(
                    "rewrite_url",
                    default="",
                    optional=True,
                    tooltip="A server that speaks OpenAI's protocol, such as http://localhost:11434/v1. Empty: a folder, or rules that need nothing.",  # noqa: E501
                ),
                io.String.Input(
                    "rewrite_model",
                    default="",
                    optional=True,
                    tooltip="The model's name there; without a server, a folder with a language model.",
                ),
            ],
            outputs=[RequestType.Output(display_name="request"), io.String.Output(display_name="prompt")],
        )

    @classmethod
    def execute(
        cls, prompt: str, negative_prompt: str = "", rewrite: str = "off", rewrite_url: str = "", rewrite_model: str = ""
    ) -> io.NodeOutput:
        record = None
        if rewrite != "off":
            # No key goes anywhere: a workflow from a stranger names the server.
            rewriter = rewriting_by(Rewriter(rewrite_url or None, rewrite_model or None), None)
            rewritten = rewriter(prompt, rewrite)  # pyright: ignore[reportArgumentType] (one of the options)
            prompt, record = rewritten.prompt, rewritten.record
        negative = negative_prompt if negative_prompt.strip() else None
        return io.NodeOutput(Request(prompt, negative_prompt=negative, rewriting=record), prompt)
