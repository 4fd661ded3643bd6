"""What comes over the wire and what goes back: OpenAI's names first, ours beside them. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, WithJsonSchema

from hunyuan_video.buckets import Resolution
from hunyuan_video.config import MAX_PROMPT_CHARACTERS, Sampling, Solver, Stability, require
from hunyuan_video.serving.jobs import Job, NamedLora, Status
from hunyuan_video.serving.orders import Asked

_DATA_URL = re.compile(r"data:[a-z0-9.+/;=-]{0,100},", re.IGNORECASE)
MAX_SECONDS = 3600


def picture_bytes(given: object) -> bytes | None:
    """A picture's file from a part of a form, a data URL, or an object that has one. Nothing is fetched.

    Raises:
        ValueError: it is something else.
    """
    if given is None or isinstance(given, bytes):
        return given
    if isinstance(given, dict):
        require(given.keys() == {"image_url"}, "input_reference needs image_url, a data URL, and nothing else: files are not kept here.")
        given = given["image_url"]
    match = _DATA_URL.match(given) if isinstance(given, str) else None
    require(match is not None, "input_reference is no picture; send the file itself or a data URL (data:image/png;base64,…), no address.")
    assert match is not None and isinstance(given, str)
    require(match[0].lower().endswith(";base64,"), "input_reference is a data URL that is not in base64.")
    try:
        return base64.b64decode(given[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"input_reference is a data URL that is cut short or damaged ({error}).") from error


def is_clip(content: bytes) -> bool:
    """Whether a file is a video, by its first bytes: MP4 or QuickTime, WebM or Matroska."""
    return content[4:8] == b"ftyp" or content.startswith(b"\x1a\x45\xdf\xa3")


_PICTURE = {
    "description": "A picture that the video begins with, or a clip that it is made of: a file in a form, or a data URL.",
    "anyOf": [
        {"type": "string", "maxLength": 20971520, "description": "data:image/png;base64,…"},
        {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"], "additionalProperties": False},
        {"type": "null"},
    ],
}
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
Seconds = Annotated[str | FiniteFloat | None, Field(description="4n + 1 frames at 24 a second nearest to this length, and one more")]


def _no_truth(given: object) -> object:
    """True is 1 to Python, and to nobody else."""
    require(not isinstance(given, bool), "true and false are no numbers")
    return given


Whole = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[FiniteFloat, BeforeValidator(_no_truth)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Lora(Strict):
    """One of those that /v1/models lists, and how strongly it acts."""

    name: Annotated[str, Field(max_length=255)]
    strengths: str | FiniteFloat = 1
    """a number, or such as 0.8,single_blocks.0-19=0"""


Picture = Annotated[bytes | None, BeforeValidator(picture_bytes), WithJsonSchema(_PICTURE)]


class Keyframe(Strict):
    """A picture that is seen at a frame."""

    frame: Whole = Field(description="from 0; -1 is the last")
    image: Picture = None


class Create(Strict):
    """A video to make. What is left out is as the weights were made for."""

    prompt: Prompt
    model: str | None = None
    seconds: Seconds = None
    size: str | None = Field(None, description="WIDTHxHEIGHT", pattern=r"^\d{1,5}x\d{1,5}$")
    input_reference: Picture = None
    keyframes: list[Keyframe] | None = Field(None, max_length=20)
    strength: Number | None = Field(None, description="of a clip: how much of it is made anew, above 0, at most 1")
    loop: bool = False
    negative_prompt: Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS)] = None
    num_frames: Whole | None = Field(None, description="4n + 1, in place of seconds")
    height: Whole | None = Field(None, description="multiple of 16, in place of size")
    width: Whole | None = None
    num_steps: Whole | None = None
    shift: Number | None = None
    schedule: Literal["shift", "linear-quadratic"] | None = None
    linear_steps: Whole | None = None
    guidance: Number | None = None
    cfg_scale: Number | None = None
    seed: Whole | None = None
    solver: Solver | None = None
    noise: Literal["cpu", "official"] | None = None
    stability: Stability | None = None
    resolution: Resolution | None = Field(None, description="in place of size: the official one of the picture's shape")
    positions: Literal["plain", "riflex"] | None = None
    loras: list[Lora] | None = Field(None, max_length=20)
    rewrite: Literal["off", "normal", "master"] | None = None
    webhook_url: str | None = None

    def asked(self, fps: int) -> Asked:
        """Raises a ValueError for what cannot be."""
        width, height = _pair(self)
        require(self.seconds is None or self.num_frames is None, "seconds and num_frames say the same; give one of them.")
        frames = self.num_frames if self.seconds is None else frames_of(self.seconds, fps)
        names = (
            *("num_steps", "shift", "schedule", "linear_steps", "guidance", "cfg_scale", "seed", "solver", "noise", "stability"),
            *("strength", "loop", "positions"),
        )
        sampling = Sampling(height=height, width=width, num_frames=frames, **{name: getattr(self, name) for name in names})
        loras = tuple(NamedLora(lora.name, str(lora.strengths)) for lora in self.loras or ())
        given, pictures = self.input_reference, []
        for keyframe in self.keyframes or ():
            require(keyframe.image is not None, f"keyframes has none at frame {keyframe.frame}; give its image.")
            assert keyframe.image is not None
            pictures.append((keyframe.frame, keyframe.image))
        return Asked(
            *(self.prompt, sampling, self.negative_prompt, None if given is not None and is_clip(given) else given, loras),
            *(self.rewrite, None, self.model, self.webhook_url),
            resolution=self.resolution,
            keyframes=tuple(pictures),
            video=given if given is not None and is_clip(given) else None,
        )


class Remix(Strict):
    """The same video, by another prompt."""

    prompt: Prompt


class VideoReference(Strict):
    id: str


class Extend(Strict):
    """What comes after a finished video."""

    prompt: Prompt
    video: VideoReference | bytes
    seconds: Seconds = None


class Edit(Strict):
    """A video that is made of another one."""

    prompt: Prompt
    video: VideoReference | bytes
    strength: Number | None = Field(None, description="how much of it is made anew, above 0, at most 1")


class Character(Strict):
    name: Annotated[str, Field(min_length=1, max_length=80)]
    video: bytes


class VideoError(BaseModel):
    code: str
    message: str


class LoraUsed(BaseModel):
    name: str
    strengths: str


class Rewriting(BaseModel):
    """How the prompt came about."""

    original: str
    mode: Literal["normal", "master"]
    backend: str


class Parameters(BaseModel):
    """All that decides what the video is, with nothing left open."""

    height: int
    width: int
    num_frames: int
    fps: int
    num_steps: int
    shift: float
    schedule: str
    linear_steps: int | None
    guidance: float | None
    cfg_scale: float
    seed: int
    solver: str
    noise: str
    stability: str
    positions: str
    strength: float | None
    """of what is made of a clip"""
    loop: bool
    negative_prompt: str | None
    loras: list[LoraUsed]
    input_reference: bool
    """whether it begins with a picture, or is made of a clip"""
    keyframes: list[int]
    """other frames at which pictures were given"""
    rewriting: Rewriting | None
    """None: the prompt is as it was given"""
    notice: str | None
    """what did not go as asked"""


class Video(BaseModel):
    """A job, as OpenAI's clients know it, and `parameters`."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str | None
    size: str
    seconds: str
    remixed_from_video_id: str | None
    error: VideoError | None
    parameters: Parameters


class VideoList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "hunyuan-video"
    image_to_video: bool
    defaults: dict[str, Any]
    limits: dict[str, Any]
    loras: list[str]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    status: str


def video_of(job: Job, fps: int) -> Video:
    sampling, rewritten, failed = job.order.sampling, job.order.rewritten, job.error_code is not None
    values = {name: getattr(sampling, name) for name in Parameters.model_fields if hasattr(sampling, name)}
    return Video(
        id=job.id,
        model=job.model,
        status=job.status,
        progress=job.progress,
        created_at=int(job.created_at),
        completed_at=None if job.completed_at is None else int(job.completed_at),
        expires_at=None if job.expires_at is None else int(job.expires_at),
        prompt=job.order.prompt,
        size=f"{sampling.width}x{sampling.height}",
        seconds=seconds_of(sampling.num_frames, fps),
        remixed_from_video_id=job.remixed_from,
        error=VideoError(code=job.error_code or "", message=job.error_message or "") if failed else None,
        parameters=Parameters(
            **values,
            fps=fps,
            negative_prompt=job.order.negative_prompt,
            loras=[LoraUsed(name=lora.name, strengths=lora.strengths) for lora in job.order.loras],
            input_reference=job.order.image is not None or job.order.clip is not None,
            keyframes=[each.frame for each in job.order.keyframes],
            rewriting=None if rewritten is None else Rewriting(**asdict(rewritten)),
            notice=job.order.notice,
        ),
    )


def frames_of(seconds: str | float, fps: int) -> int:
    """The number of frames, 4n + 1, whose first and last are nearest to so many seconds apart. Raises a ValueError for no length."""
    try:
        length = float(seconds)
    except ValueError:
        length = math.nan
    require(0 <= length <= MAX_SECONDS, f"seconds is {seconds!r:.50}; it must be a number from 0 to {MAX_SECONDS}, such as 4.")
    return 4 * round(length * fps / 4) + 1


def seconds_of(num_frames: int, fps: int) -> str:
    """Between the first and the last frame, to the millisecond: what `frames_of` makes the same number of frames of."""
    return f"{(num_frames - 1) / fps:.3f}".rstrip("0").rstrip(".")


def _pair(given: Create) -> tuple[int | None, int | None]:
    """Width and height, of one or the other way to say them."""
    if given.size is None:
        return given.width, given.height
    require(given.width is None and given.height is None, "size and width or height say the same; give one or the others.")
    width, height = map(int, given.size.split("x"))
    return width, height
