"""What a user may set: frozen, flat, validated where the value enters. Imports no torch.

`Sampling` is what to make; `Runtime` is how to make it (it may change speed, memory and rounding, never what was asked for); `Limits` is
how much of it.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from reprlib import repr  # short: an array has thousands of numbers
from secrets import randbelow
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Verbatim from the official release; used when classifier-free guidance is on and no negative prompt is given.
OFFICIAL_NEGATIVE_PROMPT = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, "
    "bad hands, bad teeth, bad eyes, bad limbs, distortion"
)
I2V_NEGATIVE_PROMPT = "deformation, a poor composition and deformed video, bad teeth, bad eyes, bad limbs"  # of the image-to-video release
MAX_SEED = 2**63 - 1
SIZE_MULTIPLE = 16  # 8x from the VAE, 2x from the transformer's patches
MAX_TIMEOUT = 7 * 24 * 3600  # seconds
# How weights are told what a video begins with: not at all; by its first latent frame, which stays without noise ("token replace"); or by
# latents of a picture and a mask beside the noisy ones, on 33 channels.
Conditioning = Literal["text", "first_frame", "latent_concat"]
# What of a video's latent frames weights were trained to be given: the first; with it the last; or the first ones, two or more.
Given = Literal["first", "last", "continuation"]
Stability = Literal["stable", "dynamic"]
STRENGTH = 0.6  # with which a clip is made anew, unless another one is asked for
SHIFTS: dict[Stability, float] = {"stable": 7.0, "dynamic": 17.0}  # the official ones
Solver = Literal["euler", "heun", "dpm++2m", "unipc"]
StepCache = Literal["off", "drift", "taylor", "first-block"]
CACHE_THRESHOLDS = {"drift": 0.05, "taylor": 0.05, "first-block": 0.05}  # what `cache_threshold` means if it is left out
MAX_SCALE = 1000  # of shift and guidance: beyond, noise levels cannot be told apart in float32, and velocities overflow
MAX_PROMPT_CHARACTERS = 10_000  # far beyond the 256 text tokens the model reads; stops a mistaken file from being tokenized


def require(correct: bool, sentence: str) -> None:
    if not correct:
        raise ValueError(sentence)


def check_types(settings: object) -> None:
    """Refuse values of another type or choice than the fields say, for settings also come from files and from other programs, whose whole
    numbers become floats where a field is one."""
    for name, kind in _hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is tuple:
            item_type = get_args(kind)[0]
            right = isinstance(value, tuple) and all(isinstance(item, item_type) for item in value)
            require(right, f"{name} is {repr(value)}; it must be a tuple of {item_type.__name__}.")
            continue
        options = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
        choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
        types = [option for option in options if isinstance(option, type)]
        if type(value) is int and float in types and int not in types:
            value = float(value)
            object.__setattr__(settings, name, value)
        right = value in choices or (isinstance(value, tuple(types)) and (bool in types or not isinstance(value, bool)))
        wanted = ", ".join(choices) if choices else " or ".join(option.__name__ for option in types).replace("NoneType", "None")
        require(right, f"{name} is {repr(value)}; it must be {wanted}.")


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Read once: hints are code that is compiled."""
    return get_type_hints(kind)


@dataclass(frozen=True)
class Sampling:
    """One video to make. What is left open, None, is as the weights were made for: see `over`."""

    height: int | None = None
    """pixels, a multiple of 16 (default: the weights' own)"""
    width: int | None = None
    """pixels, a multiple of 16 (default: the weights' own)"""
    num_frames: int | None = None
    """4n + 1; 1 makes a single image (default: the weights' own)"""
    num_steps: int | None = None
    """denoising steps (default: the weights' own)"""
    shift: float | None = None
    """flow shift: larger spends more steps on layout and motion, fewer on detail (default: the weights' own)"""
    schedule: Literal["shift", "linear-quadratic"] | None = None
    """how the noise levels are spaced; linear-quadratic ignores the shift (default: the weights' own)"""
    linear_steps: int | None = None
    """linear-quadratic only: how many of the steps are linear (default: the weights' own, or else half)"""
    guidance: float | None = None
    """embedded guidance scale, for weights distilled with one (default: the weights' own)"""
    cfg_scale: float | None = None
    """classifier-free guidance in two passes; 1 is off, and the negative prompt is then unused (default: the weights' own)"""
    seed: int | None = None
    """0 or more; the same seed gives the same video (default: random, and recorded in the file)"""
    solver: Solver | None = None
    """how a step is taken; heun evaluates the model twice in each, dpm++2m and unipc once, and look back (default: the weights' own)"""
    noise: Literal["cpu", "official"] | None = None
    """cpu: float32 noise drawn on the CPU, so a seed means the same on every device; official: float16 on the compute device, as the
    official code draws it (default: the weights' own)"""
    stability: Stability | None = None
    """of a video that begins with a picture: stable starts from noise with a trace of the picture in every frame, dynamic from noise alone,
    and moves more; another than the weights' own brings its shift, 7 or 17, unless one is given (default: the weights' own)"""
    strength: float | None = None
    """of a video that is made of another one: the share of the steps that is done, above 0 (the clip as it was) to 1 (nothing of it is
    left; default: 0.6)"""
    positions: Literal["plain", "riflex"] | None = None
    """of a video half as long again as those that the weights were trained on, or longer: riflex stretches what else would repeat
    (default: the weights' own)"""
    loop: bool = False
    """make a video whose end leads to its beginning; of num_frames, which leads back, the last one is left out"""

    def __post_init__(self) -> None:
        check_types(self)
        Limits().check(self)
        for name, size in (("height", self.height), ("width", self.width)):
            if size is not None:
                near = max(1, round(size / SIZE_MULTIPLE)) * SIZE_MULTIPLE
                right = size > 0 and size % SIZE_MULTIPLE == 0
                require(right, f"{name} is {size}; it must be a positive multiple of {SIZE_MULTIPLE}, such as {near}.")
        if self.num_frames is not None:
            near = max(0, round((self.num_frames - 1) / 4)) * 4 + 1
            require(
                self.num_frames > 0 and self.num_frames % 4 == 1, f"num_frames is {self.num_frames}; it must be 4n + 1, such as {near}."
            )
        require(self.num_steps is None or self.num_steps >= 1, f"num_steps is {self.num_steps}; it must be 1 or more.")
        require(
            self.shift is None or 1 / MAX_SCALE <= self.shift <= MAX_SCALE,
            f"shift is {self.shift}; it must be above 0, from {1 / MAX_SCALE:g} to {MAX_SCALE} (the official value is 7).",
        )
        require(
            self.guidance is None or 0 <= self.guidance <= MAX_SCALE,
            f"guidance is {self.guidance}; it must be 0 to {MAX_SCALE} (the official value is 6), or left out for weights without it.",
        )
        require(
            self.cfg_scale is None or 1 <= self.cfg_scale <= MAX_SCALE,
            f"cfg_scale is {self.cfg_scale}; it must be 1 (off) or more, up to {MAX_SCALE}.",
        )
        require(self.strength is None or 0 < self.strength <= 1, f"strength is {self.strength}; it must be above 0, and at most 1.")
        require(self.seed is None or 0 <= self.seed <= MAX_SEED, f"seed is {self.seed}; it must be between 0 and {MAX_SEED}.")

    def over(self, defaults: FullSampling) -> FullSampling:
        """With nothing left open: as in `defaults`, but for the seed, which is drawn.

        Raises:
            ValueError: what was given and what was left open do not go together.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if self.stability not in (None, defaults.stability):
            given = {"shift": SHIFTS[self.stability]} | given
        return replace(defaults, **{"seed": randbelow(2**31)} | given)


@dataclass(frozen=True)
class FullSampling(Sampling):
    """One video to make, with nothing left open: None has the meaning that its field says. The defaults are the official ones; a weights
    folder may bring its own in `generation_config.json`."""

    height: int = 720
    width: int = 1280
    num_frames: int = 129
    num_steps: int = 50
    shift: float = 7.0
    schedule: Literal["shift", "linear-quadratic"] = "shift"
    linear_steps: int | None = None
    """None: half of them"""
    guidance: float | None = 6.0
    """None for weights without embedded guidance"""
    cfg_scale: float = 1.0
    seed: int = 0
    solver: Solver = "euler"
    noise: Literal["cpu", "official"] = "cpu"
    stability: Stability = "dynamic"
    positions: Literal["plain", "riflex"] = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule == "shift":
            return
        require(self.num_steps >= 2, "A linear-quadratic schedule needs num_steps of 2 or more.")
        require(
            self.linear_steps is None or self.num_steps / 40 <= self.linear_steps < self.num_steps,
            f"linear_steps is {self.linear_steps}; it must be below num_steps, {self.num_steps}, and at least a fortieth of it.",
        )

    def over(self, defaults: FullSampling) -> FullSampling:
        """Itself: there is nothing to fill in."""
        return self

    @property
    def evaluations(self) -> int:
        """Of the transformer, for one branch of guidance, if no step is left out."""
        return 2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps


@dataclass(frozen=True)
class Limits:
    """The most that may be asked for. The defaults, which hold everywhere, are beyond what anybody means. Who computes for strangers has
    lower ones, and gives them to `Request.check`, and the complete settings to `check`."""

    max_side: int = 8192
    """pixels"""
    max_frames: int = 10_001
    max_pixels: int = 10**10
    """of all frames together; 3 hours of 480p, or 7 minutes of 720p"""
    max_steps: int = 1000
    max_prompt_characters: int = MAX_PROMPT_CHARACTERS

    def __post_init__(self) -> None:
        check_types(self)

    def check(self, sampling: Sampling) -> None:
        """Raises a ValueError for more; what is left open is no more."""
        bounds = {"height": self.max_side, "width": self.max_side, "num_frames": self.max_frames, "num_steps": self.max_steps}
        for name, most in bounds.items():
            value = getattr(sampling, name)
            require(value is None or value <= most, f"{name} is {value}; it must be {most} or less.")
        frames, height, width = sampling.num_frames or 1, sampling.height or 1, sampling.width or 1
        pixels = frames * height * width
        require(
            pixels <= self.max_pixels,
            f"num_frames of {frames} and {height}x{width} make {pixels} pixels; they must be {self.max_pixels} or less together.",
        )


def check_solver(sampling: FullSampling, runtime: Runtime) -> None:
    """Refuse a solver for what counts evaluations as steps."""
    counting = {
        "pipefusion_patches": runtime.pipefusion_patches is not None,
        "step_cache": runtime.step_cache != "off",
        "attention_density": runtime.attention_density < 1,
    }
    counts = next((name for name, is_on in counting.items() if is_on), None)
    whose = _of_speed(runtime) if counts == "step_cache" else ""
    require(
        sampling.solver != "heun" or counts is None,
        f"solver is 'heun', which evaluates the model twice at a noise level, but {counts}{whose} takes each evaluation for a step; "
        "use another solver, or leave that out.",
    )


def _of_speed(runtime: Runtime) -> str:
    """Who asked for a step cache, if it was a preset."""
    return "" if runtime.speed == "exact" else f" (of speed {runtime.speed!r}; --step-cache off goes with it)"


def why_not_continued(sampling: FullSampling, runtime: Runtime) -> str | None:
    """What a video needs from its last step besides the latents, in words; None for one that continues exactly from these."""
    if runtime.pipefusion_patches is not None:
        return "with pipefusion_patches it needs the last step's keys and values"
    if runtime.step_cache != "off":
        return f"with step_cache {runtime.step_cache!r}{_of_speed(runtime)} it needs what earlier steps computed"
    if sampling.solver in ("dpm++2m", "unipc"):
        return f"with solver {sampling.solver!r} it needs what earlier steps computed"
    return None


def check_guidance(guidance: float | None, embedded: bool, weights: object) -> None:
    """Refuse a guidance scale for weights without embedded guidance, and none for those with it; `weights` is what to call them."""
    if embedded:
        require(guidance is not None, f"guidance is left out, but {weights} need an embedded guidance scale (the official value is 6).")
    else:
        require(guidance is None, f"guidance is {guidance}, but {weights} have no embedded guidance; leave it out, and use cfg_scale.")


def check_prompt(prompt: str, name: str = "The prompt", *, empty_ok: bool = False, limits: Limits = Limits()) -> None:
    """Refuse what cannot be a prompt: empty, or so long that it must be a mistake."""
    require(empty_ok or bool(prompt.strip()), f"{name} is empty; describe the video in a sentence or two.")
    halves = not prompt.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in prompt)
    require(not halves, f"{name} holds half a character (a lone surrogate), which no file can keep; type it again.")
    require("\0" not in prompt, f"{name} holds a character of number 0, which no program means; type it again.")
    require(
        len(prompt) <= limits.max_prompt_characters,
        f"{name} has {len(prompt)} characters; the limit is {limits.max_prompt_characters}, and the model reads about the first 1,000.",
    )


def parse_bytes(text: str, name: str) -> int:
    """The number of bytes that people write as 24GB (10^9) or 24GiB (2^30)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB)", text, flags=re.IGNORECASE)
    require(match is not None and float(match[1]) > 0, f"{name} is {text!r}; it must be a number of GB or GiB, such as 24GB.")
    assert match is not None
    return round(float(match[1]) * {"GB": 10**9, "GIB": 2**30}[match[2].upper()])


RewriteMode = Literal["normal", "master"]  # of a prompt: to be understood faithfully, or to look its best
LoadKey = Literal["module", "ema"]  # of an official transformer's file: the weights, or their average
DType = Literal["auto", "float32", "bfloat16", "float16"]
ComputingDType = Literal["auto", "bfloat16", "float32"]  # of a training
# fmt: off
Attention = Literal[
    "auto", "sdpa", "matmul", "chunked",
    "native", "native-avx2", "native-avx512", "native-avx512-bf16", "native-amx",
    "cudnn", "flash", "flash-attn-2", "flash-attn-3", "flash-attn-4", "sage", "int8", "fp8",
]
# fmt: on
BlockOps = Literal["auto", "pytorch", "onednn", "native", "onednn+native", "triton"]
Progressive = Literal["off", "time", "space", "space-time"]
SparsePattern = Literal["tiles", "radial", "dynamic"]
Speed = Literal["exact", "balanced", "fast", "draft"]

# What each preset sets of the settings of a Runtime that are open, in groups: where the first of a group is given, the preset says nothing
# of the others. All presets have the same groups, of what lives for one video; never how many steps or pixels, which are asked for.
SPEEDS: dict[Speed, tuple[dict[str, Any], ...]] = {
    "exact": ({"step_cache": "off", "cache_threshold": None}, {"progressive": "off", "progressive_until": None}),
    "balanced": ({"step_cache": "taylor", "cache_threshold": 0.05}, {"progressive": "off", "progressive_until": None}),
    "fast": ({"step_cache": "taylor", "cache_threshold": 0.1}, {"progressive": "time", "progressive_until": 0.6}),
    "draft": ({"step_cache": "taylor", "cache_threshold": 0.2}, {"progressive": "time", "progressive_until": 0.4}),
}
# Of a Runtime, what begins and ends with each video, so that the same loaded models serve any.
PER_VIDEO = frozenset(
    {name for group in SPEEDS["exact"] for name in group} | {"attention_density", "sparse_pattern", "window", "vae_tiling"}
)


@dataclass(frozen=True)
class Runtime:
    """How to compute. Changes speed, memory and rounding, never what was asked for."""

    speed: Speed = "exact"
    """what is not set below: exact: nothing that changes the video; balanced: hard to tell from it; fast: other details; draft: more
    of them, for choosing a prompt or a seed (docs/faster.md has the price of each)"""
    device: str = "auto"
    """auto (CUDA if there is one, else cpu), cpu, cuda, cuda:1 …"""
    dtype: DType = "auto"
    """of the transformer; auto: bfloat16 on CUDA; on a CPU float32, or bfloat16 if it is stored in more than 2 GiB and the CPU
    multiplies that"""
    vae_dtype: DType = "auto"
    """auto: float16 on CUDA; on a CPU as above"""
    text_dtype: DType = "auto"
    """auto: float16 on CUDA; on a CPU as above"""
    attention: Attention = "auto"
    """the kernel; auto: the fastest here of those that are exact, measured once at about the video's length and recorded; native: the same
    of our own for CPUs; int8, fp8: in 8 bits on a GPU, which changes the video a little; or one of them by name (docs/attention.md)"""
    block_ops: BlockOps = "auto"
    """what computes a block's products and norms; auto: the fastest here, measured once and recorded; or by name (docs/attention.md)"""
    vae_tiling: bool = True
    """encode and decode in tiles, as the official code always does: bounded memory; the seams are blended"""
    offload: Literal["none", "models", "blocks", "auto"] = "none"
    """models: keep each model on the device only while it works; blocks: and of the transformer and the language model one block at a
    time, and the next; auto: the fastest of the three that fits (docs/memory.md)"""
    fp8: bool = False
    """keep the transformer blocks' weights in 8 bits (float8_e4m3fn with one scale each): half the memory of bfloat16"""
    fp8_matmul: bool = False
    """and multiply in 8 bits, for which activations are rounded, too (includes fp8; needs compute capability 8.9; docs/memory.md)"""
    text_fp8: bool = False
    """the same for the language model's layers"""
    ulysses_degree: int | None = None
    """of several GPUs: how many trade tokens for attention heads (default: with the ring degree, what suits the heads and the number)"""
    ring_degree: int | None = None
    """and in how many groups of these keys and values go round"""
    wire: Literal["exact", "fp8"] = "exact"
    """how they send each other queries, values and outputs: as they are, or in 8 bits, which changes the video a little"""
    shard: bool = False
    """spread the transformer's and the language model's weights over the GPUs, each block gathered while it works"""
    pipefusion_patches: int | None = None
    """cut each step's tokens into so many patches, which see keys and values of the last step for the patches after them: another video,
    near the exact one (default: none, or four for each stage; docs/pipefusion.md)"""
    pipefusion_stages: int = 1
    """ranks that share the transformer's blocks, through which patches follow each other; changes no value"""
    warmup_steps: int = 1
    """the first steps, which are exact, where there are patches"""
    step_cache: StepCache | None = None
    """leave out steps in which little changes, for another video, near the exact one: drift repeats the last velocity, taylor extrapolates
    the last ones, first-block repeats what all blocks but the first add (default: as speed says; docs/faster.md)"""
    cache_threshold: float | None = None
    """by how much what is left out may be expected to err, relative to it; 0 leaves out nothing (default: a good one of each kind)"""
    progressive: Progressive | None = None
    """make the first steps with half the frames, with half the height and width, or both: another video, near the exact one
    (default: as speed says; docs/faster.md)"""
    progressive_until: float | None = None
    """the noise level down to which steps have half the frames; where they are smaller, a higher one that follows from it. Lower is faster,
    and loses details (default: 0.6)"""
    attention_density: float = 1.0
    """the share of all pairs of tokens that attention computes in most steps and blocks; 1: all of them, exactly (docs/faster.md)"""
    sparse_pattern: SparsePattern = "dynamic"
    """which: of near tokens; fewer the farther in time; or chosen by what they hold"""
    window: int | None = None
    """of a long video, the frames that are seen at once, 4n + 1, through windows that overlap: it then takes no more memory than one of so
    many frames, and no more of it hangs together (default: all)"""
    timeout: int = 120
    """seconds for which one GPU waits for a sign of life from another before all end (docs/many-gpus.md)"""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.speed == "exact" or (self.pipefusion_patches is None and self.pipefusion_stages == 1),
            f"speed is {self.speed!r}, which leaves out steps, but pipefusion_patches need every step's keys; leave out one of them.",
        )
        for group in SPEEDS[self.speed]:
            if getattr(self, next(iter(group))) is None:
                for name in group:
                    if getattr(self, name) is None:  # filled in, so that what is recorded is what was used
                        object.__setattr__(self, name, group[name])
        if self.fp8_matmul:
            object.__setattr__(self, "fp8", True)
        require(
            self.window is None or (self.window >= 9 and self.window % 4 == 1),
            f"window is {self.window}; it must be 4n + 1 frames, 9 or more.",
        )
        for name in ("ulysses_degree", "ring_degree"):
            degree = getattr(self, name)
            require(degree is None or degree >= 1, f"{name} is {degree}; it must be 1 or more.")
        require(self.pipefusion_stages >= 1, f"pipefusion_stages is {self.pipefusion_stages}; it must be 1 or more.")
        if self.pipefusion_stages > 1 and self.pipefusion_patches is None:
            object.__setattr__(self, "pipefusion_patches", 4 * self.pipefusion_stages)
        require(
            self.pipefusion_patches is None or self.pipefusion_patches >= 1,
            f"pipefusion_patches is {self.pipefusion_patches}; it must be 1 (nothing is old) or more.",
        )
        require(
            self.warmup_steps >= 1,
            f"warmup_steps is {self.warmup_steps}; it must be 1 or more: before the first step there are no old keys.",
        )
        require(
            self.pipefusion_patches is None or self.offload in ("none", "models"),
            f"offload is {self.offload!r}, but patches need every block again and again; use none or models, or more pipefusion_stages.",
        )
        if self.step_cache != "off" and self.cache_threshold is None:
            object.__setattr__(self, "cache_threshold", CACHE_THRESHOLDS[str(self.step_cache)])
        require(
            self.cache_threshold is None or self.step_cache != "off",
            f"cache_threshold is {self.cache_threshold}, but step_cache is off and leaves out no step; give drift, taylor or first-block.",
        )
        require(
            self.cache_threshold is None or 0 <= self.cache_threshold < float("inf"),
            f"cache_threshold is {self.cache_threshold}; it must be 0 (no step is left out) or more.",
        )
        require(
            self.step_cache == "off" or self.pipefusion_patches is None,
            f"step_cache is {self.step_cache!r}, but pipefusion_patches need the last step's keys, which a step that is left out does not "
            "make; leave out one of them.",
        )
        require(
            0 < self.attention_density <= 1,
            f"attention_density is {self.attention_density}; it must be above 0 and at most 1, which is exact.",
        )
        if self.progressive != "off" and self.progressive_until is None:
            object.__setattr__(self, "progressive_until", 0.6)
        require(
            self.progressive_until is None or self.progressive != "off",
            f"progressive_until is {self.progressive_until}, but progressive is off; leave it out, or give time, space or space-time.",
        )
        require(
            self.progressive_until is None or 0 < self.progressive_until < 1,
            f"progressive_until is {self.progressive_until}; it must be a noise level between 0 and 1.",
        )
        require(
            self.progressive == "off" or self.pipefusion_patches is None,
            f"progressive is {self.progressive!r}, but patches need the last step's keys, which are of another size where the video grows; "
            "leave one of the two out.",
        )
        require(1 <= self.timeout <= MAX_TIMEOUT, f"timeout is {self.timeout}; it must be between 1 and {MAX_TIMEOUT} seconds.")
        kind, _, index = self.device.partition(":")
        require(
            kind in ("auto", "cpu", "cuda", "mps") and (not index or (index.isdigit() and kind == "cuda")),
            f"device is {self.device!r}; it must be auto, cpu, cuda, cuda:N or mps.",
        )

    @classmethod
    def open(cls) -> Runtime:
        """The default of a command line, where what a preset fills in is still to be filled in: by the one that the line says."""
        runtime = cls()
        for name in (name for group in SPEEDS["exact"] for name in group):
            object.__setattr__(runtime, name, None)
        return runtime

    def at_speed(self, speed: Speed) -> Runtime:
        """With all that a preset says as this one says it. `replace` would keep what has been filled in."""
        return replace(self, speed=speed, **{name: None for group in SPEEDS[speed] for name in group})

    def for_whole(self) -> Runtime:
        """What a preset means for a video whose frames must all be there from the first step on: some are given, or it is a loop."""
        (preset,) = (group["progressive"] for group in SPEEDS[self.speed] if "progressive" in group)
        if preset == "off" or self.progressive != preset:
            return self
        return replace(self, progressive="off", progressive_until=None)

    def exact(self) -> Runtime:
        """Without anything that makes another video than float32, or the dtypes given, would."""
        plain = {name: getattr(Runtime(), name) for name in _INEXACT}
        return replace(self.at_speed("exact"), **plain)


_INEXACT = (
    "window",
    "attention",
    "attention_density",
    "sparse_pattern",
    "fp8",
    "fp8_matmul",
    "text_fp8",
    "wire",
    "pipefusion_patches",
    "pipefusion_stages",
    "warmup_steps",
)


@dataclass(frozen=True)
class Output:
    """Where videos go and in what form."""

    out: Path = Path("results")
    """folder for the files; made if it is missing"""
    format: Literal["mp4", "webm", "gif", "png", "latents"] | None = None
    """mp4: H.264; webm: AV1; png: a folder of frames, or one image; latents: undecoded, for `hunyuan-video decode` (default: mp4, or png
    of a single image)"""
    crf: int | None = None
    """quality of mp4 (0-51) and webm (0-63); smaller is better and larger (default: a good one)"""
    fps: int = 24
    metadata: bool = True
    """store prompt and settings inside the file, so that `hunyuan-video replay` can make it again"""
    name_suffix: str = ""
    """appended to the name of every file"""

    def __post_init__(self) -> None:
        check_types(self)
        fastest = 50 if self.format == "gif" else 240  # viewers slow faster GIFs down
        require(
            1 <= self.fps <= fastest,
            f"fps is {self.fps}; for {self.format} it must be between 1 and {fastest} (HunyuanVideo is trained at 24).",
        )
        require(
            all(c.isalnum() or c in "-_." for c in self.name_suffix) and len(self.name_suffix.encode()) <= 50,
            f"name_suffix is {self.name_suffix!r}; it may hold up to 50 bytes of letters, digits, '-', '_' and '.'.",
        )
        limit = {"mp4": 51, "webm": 63, None: 51}.get(self.format)
        if self.crf is not None:
            require(limit is not None, f"crf is {self.crf}, but {self.format} has no such setting; use it with mp4 or webm.")
            require(0 <= self.crf <= (limit or 0), f"crf is {self.crf}; for {self.format} it must be between 0 and {limit}.")

    def of(self, num_frames: int) -> Output:
        """For so many frames, with the format that suits them, if none was chosen."""
        if self.format is not None:
            return self
        return replace(self, format="png" if num_frames == 1 and self.crf is None else "mp4")

    @property
    def suffix(self) -> str:
        return ".safetensors" if self.format == "latents" else f".{self.format or 'mp4'}"


_DATABASE, _FILES = "HUNYUAN_VIDEO_DATABASE", "HUNYUAN_VIDEO_FILES"
BY_ENVIRONMENT = {"by_environment": True}  # of what may hold a password: another process gets it so, for all can read its command line


@dataclass(frozen=True)
class Place:
    """Where jobs and files are."""

    data: Path = Path("server")
    """folder for the database and the files, unless the next two say else"""
    database: str | None = field(default_factory=lambda: os.environ.get(_DATABASE), metadata=BY_ENVIRONMENT)
    """of jobs: postgresql+psycopg://USER@HOST/NAME for workers on many machines (default: $HUNYUAN_VIDEO_DATABASE, else DATA/jobs.db,
    SQLite)"""
    files: str | None = field(default_factory=lambda: os.environ.get(_FILES), metadata=BY_ENVIRONMENT)
    """of videos: a folder, or a URL that fsspec knows, such as s3://bucket/videos (default: $HUNYUAN_VIDEO_FILES, else DATA/files)"""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def environment(self) -> dict[str, str]:
        """By which another process has the same database and files."""
        given = {_DATABASE: self.database, _FILES: self.files}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def url(self) -> str:
        """Of the database, as SQLAlchemy has it."""
        return self.database or f"sqlite:///{self.data.absolute() / 'jobs.db'}"

    @property
    def results(self) -> str:
        """Of the files."""
        return self.files or str(self.data / "files")
