"""What is asked for, and what a file tells of itself: values, read once where they enter. Imports no torch.

A `Request` goes from whoever asks to the pipeline; a `Provenance` comes back, goes into the file, and is what a replay starts from. It
knows pictures and adapters by their content: a file from a stranger may name any path, and none that it names is ever opened.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.config import (
    STRENGTH,
    Conditioning,
    FullSampling,
    Given,
    Limits,
    LoadKey,
    RewriteMode,
    Runtime,
    Sampling,
    check_prompt,
    check_types,
    require,
)

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+|nan|inf)(?:e[+-]?\d+)?"
_BLOCKS = r"(double_blocks|single_blocks)(?:\.(\d+)(?:-(\d+))?)?"
_STRENGTHS = re.compile(rf"(?:{_NUMBER}|{_BLOCKS}={_NUMBER})(?:,{_BLOCKS}={_NUMBER})*", re.IGNORECASE)
MAX_TIMES = 1000  # that a video goes on from another
HOW_TO_NAME_A_LORA = "FILE, FILE:STRENGTH, FILE:BLOCKS=STRENGTH or FILE:STRENGTH,BLOCKS=STRENGTH"


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a person sees, known by its pixels."""

    pixels: UInt8[np.ndarray, "*shape 3"]

    _axes: ClassVar[str]
    _how: ClassVar[str]

    def __post_init__(self) -> None:
        pixels, axes = self.pixels, self._axes
        is_array = isinstance(pixels, np.ndarray)
        right = is_array and pixels.dtype == np.uint8 and pixels.ndim == len(axes) + 1 and pixels.shape[-1] == 3 and pixels.size > 0
        what = f"{pixels.dtype} {list(pixels.shape)}" if is_array else type(pixels).__name__
        name, shape = type(self).__name__.lower(), ", ".join(axes)
        require(right, f"The {name} is {what}; it must be uint8 [{shape}, 3], as `{self._how}` gives it.")
        own = pixels.copy()
        own.flags.writeable = False
        object.__setattr__(self, "pixels", own)

    @cached_property
    def sha256(self) -> str:
        """Of size and pixels, in hexadecimal."""
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


class Picture(_Seen):
    """A picture as a person sees it, in any size: uint8 [H, W, 3]. Equal to whatever has the same pixels."""

    _axes, _how = "HW", "read_picture"


class Clip(_Seen):
    """Frames as a person sees them, at 24 a second, in any size: uint8 [T, H, W, 3]. Equal to whatever has the same pixels."""

    _axes, _how = "THW", "read_clip"

    def trimmed(self) -> Clip:
        """Its first frames, as many as a video can have: 4n + 1."""
        count = (len(self.pixels) - 1) // 4 * 4 + 1
        return self if count == len(self.pixels) else Clip(self.pixels[:count])


@dataclass(frozen=True)
class Keyframe:
    """What a video shows at a frame: a picture, or from the first one on a clip, of 4n + 1 frames."""

    frame: int
    """from 0; -1 is the last"""
    shows: Picture | Clip

    def __post_init__(self) -> None:
        check_types(self)
        if isinstance(self.shows, Clip):
            count = len(self.shows.pixels)
            require(self.frame == 0, f"A clip is to stand at frame {self.frame}; it can begin a video (frame 0), and a picture any frame.")
            require(count % 4 == 1, f"The clip to begin with has {count} frames; they must be 4n + 1, such as {(count - 1) // 4 * 4 + 1}.")

    def place(self, num_frames: int) -> int:
        """Which of a video's frames, from 0. Raises a ValueError for one that it has not."""
        place = self.frame + num_frames if self.frame < 0 else self.frame
        last = place + (len(self.shows.pixels) if isinstance(self.shows, Clip) else 1) - 1
        require(0 <= place <= last < num_frames, f"A keyframe is at frame {self.frame}, but the video has {num_frames}, from 0 on.")
        return place

    def latent_frames(self, num_frames: int, *, loop: bool = False) -> range:
        """Which of the video's latent frames, each of which is four frames, but the first one, if it is no loop. Raises as `place`."""
        if loop:  # of which the last frame is left out
            first = self.place(num_frames - 1) // 4
            return range(first, first + 1)
        first = (self.place(num_frames) + 3) // 4
        return range(first, first + 1 + (len(self.shows.pixels) - 1) // 4) if isinstance(self.shows, Clip) else range(first, first + 1)


@dataclass(frozen=True)
class BlockStrength:
    """How strongly an adapter acts in some blocks of one kind: from `first` to `last`, both included; to the end if that is None."""

    kind: Literal["double_blocks", "single_blocks"]
    first: int
    last: int | None
    strength: float

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.first <= (self.first if self.last is None else self.last), f"{self} are no blocks; the first is 0.")
        require(isfinite(self.strength), f"the strength of {self} is {self.strength}; it must be finite.")

    @classmethod
    def parse(cls, text: str) -> BlockStrength:
        """Of single_blocks=0.5, single_blocks.7=0.5 or single_blocks.0-19=0.5. Raises a ValueError for anything else."""
        match = re.fullmatch(rf"{_BLOCKS}=(.+)", text)
        require(match is not None, f"{text!r} is no strength of blocks, such as single_blocks.0-19=0.5.")
        assert match is not None
        kind, first, last, strength = match.groups()
        end = None if first is None else int(last or first)
        return cls(kind, int(first or 0), end, float(strength))  # pyright: ignore[reportArgumentType] (the pattern says which)

    def holds(self, layer: str) -> bool:
        """Whether a layer, by its official name, is in these blocks."""
        kind, _, rest = layer.partition(".")
        return kind == self.kind and self.first <= int(rest.partition(".")[0]) <= (float("inf") if self.last is None else self.last)

    def __str__(self) -> str:
        if self.last is None:
            return self.kind
        return f"{self.kind}.{self.first}" + (f"-{self.last}" if self.last != self.first else "")


@dataclass(frozen=True)
class Strengths:
    """How strongly an adapter acts: `everywhere`, but in some blocks with what is said there; of several, the last counts."""

    everywhere: float = 1.0
    blocks: tuple[BlockStrength, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        require(isfinite(self.everywhere), f"the strength is {self.everywhere}; it must be finite.")

    @classmethod
    def parse(cls, text: str) -> Strengths:
        """Of 0.8, single_blocks=0.5 or 0.8,single_blocks=0.5,double_blocks.0-4=0. Raises a ValueError for anything else."""
        first, *others = text.split(",")
        if "=" in first:
            first, others = "1", [first, *others]
        return cls(float(first), tuple(map(BlockStrength.parse, others)))

    def at(self, layer: str) -> float:
        """In a layer, by its official name."""
        return next((part.strength for part in reversed(self.blocks) if part.holds(layer)), self.everywhere)

    def check_layers(self, layers: Iterable[str], name: str) -> None:
        """Raises a ValueError for blocks of which the file called `name`, which adapts `layers`, adapts none."""
        layers = list(layers)
        for part in self.blocks:
            require(
                any(map(part.holds, layers)),
                f"lora sets the strength of {part}, but {name} adapts nothing there; leave that out "
                "(`hunyuan-video inspect` says what it adapts).",
            )


@dataclass(frozen=True)
class Adapter:
    """A LoRA, a file or a folder that a trainer left, and how strongly it acts."""

    path: Path
    strengths: Strengths = Strengths()

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def parse(cls, text: str) -> Adapter:
        """Of FILE, or FILE:STRENGTH as `Strengths.parse` has it.

        Raises:
            ValueError: there is no file name, or a strength is not finite.
        """
        path, _, tail = text.rpartition(":")
        if not _STRENGTHS.fullmatch(tail):
            path, tail = text, "1"  # the colon of C:\style.safetensors is none of ours
        require(Path(path).name != "", f"lora is {text!r}; it must be a file, or a file and a strength such as style.safetensors:0.8.")
        try:
            return cls(Path(path), Strengths.parse(tail))
        except ValueError as error:
            raise ValueError(f"lora is {text!r}, but {error}") from error

    def check_file(self) -> None:
        """Raises a FileNotFoundError if it is not there."""
        if not self.path.exists():
            raise FileNotFoundError(
                f"lora is {self.path}, which is no file or folder; give {HOW_TO_NAME_A_LORA}, such as "
                "style.safetensors:0.8,single_blocks.0-19=0."
            )


@dataclass(frozen=True)
class Rewriting:
    """How a prompt came about that is not what somebody typed."""

    original: str
    """what was typed"""
    mode: RewriteMode
    backend: str
    """who wrote it: `offline`, or a kind of language model and its name; no address, for files travel"""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Request:
    """One video to make. Sizes and steps stand in `sampling`; adapters act in the weights, so the pipeline is loaded with them, too."""

    prompt: str
    sampling: Sampling = Sampling()  # noqa: RUF009 (frozen)
    negative_prompt: str | None = None
    """what to steer away from when cfg_scale is above 1; None: what the weights say, or else the official one"""
    image: Picture | None = None
    """a picture to begin with (image to video, for weights trained for it); it is scaled and cropped to the video's size"""
    adapters: tuple[Adapter, ...] = ()
    rewriting: Rewriting | None = None
    """how `prompt` came about, if not as it was typed; nothing but the record depends on it"""
    keyframes: tuple[Keyframe, ...] = ()
    """what else is seen at frames that are given"""
    video: Clip | None = None
    """a clip of which the video is made, with as many frames; `Sampling.strength` says how much of it is made anew"""

    def __post_init__(self) -> None:
        check_types(self)
        self.check(Limits())
        self._check_given(self.sampling)

    def check(self, limits: Limits) -> None:
        """Raises a ValueError for more than the limits allow. What is left open, `limits.check` sees once it is complete."""
        check_prompt(self.prompt, limits=limits)
        if self.negative_prompt is not None:
            check_prompt(self.negative_prompt, "The negative prompt", empty_ok=True, limits=limits)
        limits.check(self.sampling)

    def complete(self, defaults: FullSampling) -> FullSampling:
        """Its sampling with nothing left open; a video that is made of a clip has its frames. Raises a ValueError as `Sampling.over`; or if
        what is given does not fit into the video."""
        own = self.sampling
        if self.video is not None and own.num_frames is None:
            own = replace(own, num_frames=len(self.video.pixels))
        if self.video is not None and own.strength is None:
            own = replace(own, strength=STRENGTH)
        sampling = own.over(defaults)
        self._check_given(sampling)
        return sampling

    def check_told(self, how: Conditioning) -> None:
        """Raises a ValueError for what weights that are told so cannot be given."""
        more = self.video is not None or self.keyframes or self.sampling.loop
        require(
            how != "latent_concat" or not more,
            "These weights are told of one picture to begin with, on channels of their own, and of nothing else; leave out video, "
            "keyframes and loop, or use weights for text.",
        )

    @property
    def held(self) -> tuple[Keyframe, ...]:
        """All that is seen at frames that are given."""
        first = () if self.image is None else (Keyframe(0, self.image),)
        return *first, *self.keyframes

    def _check_given(self, sampling: Sampling) -> None:
        frames = sampling.num_frames
        require(not self.held or frames != 1, "image is given, but num_frames is 1; a video that begins with it needs 5 frames or more.")
        if self.video is not None:
            count = len(self.video.pixels)
            require(not self.held and not sampling.loop, "video is given, which a video is made of; leave out image, keyframes and loop.")
            require(count % 4 == 1, f"The clip has {count} frames; they must be 4n + 1, such as its first {(count - 1) // 4 * 4 + 1}.")
            require(frames in (None, count), f"num_frames is {frames}, but the clip has {count} frames; leave it out, or cut the clip.")
        require(
            self.video is not None or sampling.strength is None,
            f"strength is {sampling.strength}, which is for a video that is made of another one; give that as video, or leave it out.",
        )
        require(not sampling.loop or frames is None or frames >= 9, f"num_frames is {frames}; a loop needs 9 or more.")
        clips = any(isinstance(each.shows, Clip) for each in self.keyframes)
        require(not (sampling.loop and clips), "A loop goes on from its own end, and not from a clip; leave out one of the two.")
        if frames is not None:
            taken = [number for each in self.held for number in each.latent_frames(frames, loop=sampling.loop)]
            require(
                len({*taken}) == len(taken),
                "Two keyframes are nearer than the model tells apart: after the first frame, one in each four can be given.",
            )

    def after(self, end: Clip, given: tuple[Given, ...]) -> Request:
        """The same, but it goes on from these frames; from a single one as a picture, if weights that are `given` so know a first frame."""
        if len(end.pixels) == 1 and "first" in given:
            return replace(self, image=Picture(end.pixels[0]))
        return replace(self, keyframes=(Keyframe(0, end),))

    def numbered(self, count: int) -> list[Request]:
        """So many of it, with seeds counting up. Raises a ValueError for none, or a last seed that is too large."""
        require(count >= 1, f"num_videos is {count}; it must be 1 or more.")
        first = self.sampling.seed
        seeds = [None if first is None else first + number for number in range(count)]
        return [replace(self, sampling=replace(self.sampling, seed=seed)) for seed in seeds]


@dataclass(frozen=True)
class Adapted:
    """A LoRA that had a part in a video: its content, what its file was called, and how strongly it acted."""

    name: str
    sha256: str
    strengths: Strengths

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Held:
    """What was seen at a frame that was given, known by its content."""

    frame: int
    sha256: str

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Continued:
    """How a video goes on from a clip: how often, and how many frames of what is there each next video begins with."""

    clip_sha256: str
    times: int
    overlap: int

    def __post_init__(self) -> None:
        check_types(self)
        require(1 <= self.times <= MAX_TIMES, f"times is {self.times}; it must be between 1 and {MAX_TIMES}.")
        right = self.overlap >= 1 and self.overlap % 4 == 1
        require(right, f"overlap is {self.overlap}; it must be 4n + 1 frames, such as {max(0, self.overlap - 1) // 4 * 4 + 1}.")

    def check(self, clip_frames: int, num_frames: int) -> None:
        """Raises a ValueError if a clip of so many frames cannot be gone on from by videos of `num_frames`."""
        require(self.overlap < num_frames, f"overlap is {self.overlap}, but each video has {num_frames} frames; it must be fewer.")
        require(
            clip_frames >= self.overlap,
            f"The clip has {clip_frames} frames, fewer than the overlap of {self.overlap}; give a longer one, or a smaller overlap.",
        )


@dataclass(frozen=True)
class Provenance:
    """All that is needed to make a video again, with every open choice made."""

    prompt: str
    negative_prompt: str | None
    sampling: FullSampling
    runtime: Runtime
    model: str
    """identity of the weights: of their numbers, whatever the files are called (`checkpoint.identity`)"""
    transformer: str
    """what its file or folder was called"""
    load_key: LoadKey
    device: str
    """its name, as the driver has it"""
    hunyuan_video: str
    torch: str
    """versions"""
    image_sha256: str | None = None
    """of the picture it begins with"""
    keyframes: tuple[Held, ...] = ()
    """what else was given at frames of it"""
    video_sha256: str | None = None
    """of the clip it is made of"""
    continued: Continued | None = None
    """how it goes on from a clip, if it does; the seed is the first video's"""
    adapters: tuple[Adapted, ...] = ()
    frames_sha256: str | None = None
    """None before they are decoded"""
    rewriting: Rewriting | None = None
    """how the prompt came about, if not as it was typed"""

    def __post_init__(self) -> None:
        check_types(self)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path) -> Provenance:
        """Of what `path` holds.

        Raises:
            ValueError: it is not complete, or of a version that knew other settings.
        """
        try:
            given = _checked(cls, values, "it")
            given |= {name: kind(**_checked(kind, given[name], name)) for name, kind in (("sampling", FullSampling), ("runtime", Runtime))}
            require("seed" in values["sampling"], "sampling lacks seed")
            given["adapters"] = tuple(map(_adapted, given.get("adapters", ())))
            given["keyframes"] = tuple(Held(**_checked(Held, held, "a keyframe")) for held in given.get("keyframes", ()))
            if given.get("continued") is not None:
                given["continued"] = Continued(**_checked(Continued, given["continued"], "continued"))
            if given.get("rewriting") is not None:
                given["rewriting"] = Rewriting(**_checked(Rewriting, given["rewriting"], "rewriting"))
            return cls(**given)
        except (ValueError, TypeError) as error:
            writer = values.get("hunyuan_video", "unknown") if isinstance(values, dict) else "unknown"
            raise ValueError(
                f"{path} holds settings that this version cannot use ({error}); version {writer!r}, or an earlier state of it, wrote them."
            ) from error


def _checked(kind: Any, values: Any, what: str) -> dict[str, Any]:
    """The fields of a dataclass, all that it needs and none that it does not have."""
    require(isinstance(values, dict), f"{what} is a {type(values).__name__}")
    known = fields(kind)
    needed = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    lacking, unknown = [name for name in needed if name not in values], values.keys() - {field.name for field in known}
    require(not lacking, f"{what} lacks {', '.join(lacking)}")
    require(not unknown, f"{what} has {', '.join(map(repr, unknown))}")
    return dict(values)


def _adapted(values: Any) -> Adapted:
    given = _checked(Adapted, values, "an adapter")
    strengths = _checked(Strengths, given["strengths"], "a strength")
    blocks = tuple(BlockStrength(**_checked(BlockStrength, part, "a strength of blocks")) for part in strengths.get("blocks", ()))
    return Adapted(given["name"], given["sha256"], Strengths(strengths.get("everywhere", 1.0), blocks))
