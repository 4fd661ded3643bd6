"""The node that writes a file which tells how it was made."""

from __future__ import annotations

import hashlib
from typing import Any

from comfy_api.latest import io  # pyright: ignore[reportMissingImports]

from hunyuan_video.config import require
from hunyuan_video.video import save_video

from . import host
from .values import Record, RecordType, shown_frames

FORMATS = ["mp4", "webm", "gif"]


class Save(io.ComfyNode):
    """Frames into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoSave",
            display_name="HunyuanVideo Save",
            category=host.CATEGORY,
            description="Writes a video into the output folder. With its record, `hunyuan-video replay` makes the same frames again.",
            inputs=[
                io.MultiType.Input("images", types=[io.Image, io.Video]),
                RecordType.Input("record", optional=True, tooltip="How the video was made: it is stored in the file."),
                io.String.Input("filename_prefix", default="hunyuan-video/video", tooltip="Of the file's name; it may name folders."),
                io.Combo.Input("format", options=FORMATS, default="mp4", tooltip="mp4: H.264; webm: AV1."),
                io.Int.Input("fps", default=24, min=1, max=240, tooltip="HunyuanVideo is trained at 24."),
                io.Int.Input("crf", default=-1, min=-1, max=63, tooltip="Quality of mp4 and webm; smaller is better. -1: a good one."),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        record: Record | None = None,
        filename_prefix: str = "hunyuan-video/video",
        format: str = "mp4",
        fps: int = 24,
        crf: int = -1,
    ) -> io.NodeOutput:
        require(format in FORMATS, f"format is {format!r}; it must be one of {', '.join(FORMATS)}.")
        frames = shown_frames(images)
        if record is not None:
            same = hashlib.sha256(frames.tobytes()).hexdigest() == record.made.frames_sha256
            require(same, "The frames are not what the record tells of: a node has changed them; leave the record unconnected.")
        path, subfolder = host.place_for_output(filename_prefix, frames.shape[2], frames.shape[1], f".{format}")
        metadata = None if record is None else record.made.to_json()
        path = save_video(frames, path, fps=fps, crf=None if crf < 0 else crf, metadata=metadata, overwrite=False)
        seen = {"images": [{"filename": path.name, "subfolder": subfolder, "type": "output"}], "animated": (True,)}
        return io.NodeOutput(str(path), ui=seen)
