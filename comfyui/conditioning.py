"""Nodes that say what a video begins with, shows at its frames, or is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io  # pyright: ignore[reportMissingImports]
from torch import Tensor

from hunyuan_video import request as requests
from hunyuan_video.config import STRENGTH, require
from hunyuan_video.request import Request

from . import host
from .pipelines import Model, ModelType
from .values import RequestType, clip_of, picture_of, shown_frames


def clip_input() -> io.MultiType.Input:
    return io.MultiType.Input("clip", types=[io.Image, io.Video], tooltip="Frames as they are, or a video, of which 24 a second are taken.")


class FirstFrame(io.ComfyNode):
    """A picture to begin with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoFirstFrame",
            display_name="HunyuanVideo First Frame",
            category=host.CATEGORY,
            description="Begins the video with a picture, for weights that were trained for it. For others, a keyframe at 0 does.",
            inputs=[RequestType.Input("request"), io.Image.Input("image", tooltip="Its middle is taken, in the video's size.")],
            outputs=[RequestType.Output(display_name="request")],
        )

    @classmethod
    def execute(cls, request: Request, image: Tensor) -> io.NodeOutput:
        return io.NodeOutput(replace(request, image=picture_of(image)))


class Keyframe(io.ComfyNode):
    """A picture at any frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoKeyframe",
            display_name="HunyuanVideo Keyframe",
            category=host.CATEGORY,
            description="Has the video show a picture at a frame; -1 is the last. Several follow each other. Any weights can.",
            inputs=[
                RequestType.Input("request"),
                io.Image.Input("image", tooltip="Its middle is taken, in the video's size."),
                io.Int.Input(
                    "frame", default=-1, min=-10_001, max=10_000, tooltip="From 0; -1 is the last. Of each four one can be given."
                ),
            ],
            outputs=[RequestType.Output(display_name="request")],
        )

    @classmethod
    def execute(cls, request: Request, image: Tensor, frame: int = -1) -> io.NodeOutput:
        return io.NodeOutput(replace(request, keyframes=(*request.keyframes, requests.Keyframe(frame, picture_of(image)))))


class VideoToVideo(io.ComfyNode):
    """A clip that is made anew."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoVideoToVideo",
            display_name="HunyuanVideo Video to Video",
            category=host.CATEGORY,
            description="Makes a clip anew, with as many frames.",
            inputs=[
                RequestType.Input("request"),
                clip_input(),
                io.Float.Input(
                    "strength",
                    default=STRENGTH,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="The share of the steps that is done: near 0 the clip as it was, at 1 nothing of it is left.",
                ),
            ],
            outputs=[RequestType.Output(display_name="request")],
        )

    @classmethod
    def execute(cls, request: Request, clip: Any, strength: float = STRENGTH) -> io.NodeOutput:
        return io.NodeOutput(replace(request, video=clip_of(clip), sampling=replace(request.sampling, strength=strength)))


class Continue(io.ComfyNode):
    """The end of a clip to go on from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoContinue",
            display_name="HunyuanVideo Continue",
            category=host.CATEGORY,
            description="Begins the video with the last frames of a clip, so that it goes on from there.",
            inputs=[
                ModelType.Input("model"),
                RequestType.Input("request"),
                clip_input(),
                io.Int.Input(
                    "overlap", default=0, min=0, max=1001, step=1, tooltip="With how many of them; 4n + 1. 0: what suits the weights."
                ),
            ],
            outputs=[RequestType.Output(display_name="request"), io.Int.Output(display_name="overlap")],
        )

    @classmethod
    def execute(cls, model: Model, request: Request, clip: Any, overlap: int = 0) -> io.NodeOutput:
        frames, overlap = shown_frames(clip), overlap or model.weights.overlap
        require(overlap % 4 == 1, f"overlap is {overlap}; it must be 4n + 1 frames, such as {overlap // 4 * 4 + 1}.")
        require(len(frames) >= overlap, f"The clip has {len(frames)} frames, fewer than the overlap of {overlap}; give a longer one.")
        return io.NodeOutput(request.after(requests.Clip(frames[-overlap:]), model.weights.given), overlap)
