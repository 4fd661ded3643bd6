"""What a user may set: frozen, flat, validated where the value enters. Imports no torch.

`Sampling` is what to make; `Runtime` is how to make it (it may change speed, memory and rounding, never what was asked for).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr  # short: an array has thousands of numbers
from types import UnionType
from typing import Literal, get_args, get_origin, get_type_hints

# Verbatim from the official release; used when classifier-free guidance is on and no negative prompt is given.
OFFICIAL_NEGATIVE_PROMPT = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, "
    "bad hands, bad teeth, bad eyes, bad limbs, distortion"
)
MAX_SEED = 2**63 - 1
SIZE_MULTIPLE = 16  # 8x from the VAE, 2x from the transformer's patches
MAX_SIDE, MAX_FRAMES, MAX_STEPS = 8192, 10_001, 1000  # beyond what H.264 and AV1 can hold, and beyond what anybody means
MAX_TIMEOUT = 7 * 24 * 3600  # seconds
MAX_PROMPT_CHARACTERS = 10_000  # far beyond the 256 text tokens the model reads; stops a mistaken file from being tokenized


def require(correct: bool, sentence: str) -> None:
    if not correct:
        raise ValueError(sentence)


def check_types(settings: object) -> None:
    """Refuse values of another type or choice than the fields say: settings also come from files and from other programs."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is tuple:
            item_type = get_args(kind)[0]
            right = isinstance(value, tuple) and all(isinstance(item, item_type) for item in value)
            require(right, f"{name} is {repr(value)}; it must be a tuple of {item_type.__name__}.")
            continue
        options = get_args(kind) if get_origin(kind) is UnionType else (kind,)
        choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
        types = [option for option in options if isinstance(option, type)]
        if float in types:
            types.append(int)
        right = value in choices if choices else isinstance(value, tuple(types)) and (bool in types or not isinstance(value, bool))
        wanted = ", ".join(choices) if choices else " or ".join(option.__name__ for option in types).replace("NoneType", "None")
        require(right, f"{name} is {repr(value)}; it must be {wanted}.")


@dataclass(frozen=True)
class Sampling:
    """One video to make. The defaults are the official ones; a weights folder may bring its own in `generation_config.json`."""

    height: int = 720
    """pixels, a multiple of 16"""
    width: int = 1280
    """pixels, a multiple of 16"""
    num_frames: int = 129
    """4n + 1; 1 makes a single image"""
    num_steps: int = 50
    """denoising steps"""
    shift: float = 7.0
    """flow shift: larger spends more steps on layout and motion, fewer on detail"""
    schedule: Literal["shift", "linear-quadratic"] = "shift"
    """how the noise levels are spaced; linear-quadratic ignores the shift"""
    linear_steps: int | None = None
    """linear-quadratic only: how many of the steps are linear (default: half)"""
    guidance: float | None = 6.0
    """embedded guidance scale, for weights distilled with one; none for weights without"""
    cfg_scale: float = 1.0
    """classifier-free guidance in two passes; 1 is off, and the negative prompt is then unused"""
    seed: int | None = None
    """0 or more; the same seed gives the same video (default: random, and recorded in the file)"""
    noise: Literal["cpu", "official"] = "cpu"
    """cpu: float32 noise drawn on the CPU, so a seed means the same on every device; official: float16 on the compute device, as the
    official code draws it"""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("height", "width"):
            value = getattr(self, name)
            near = max(1, round(value / SIZE_MULTIPLE)) * SIZE_MULTIPLE
            require(
                value > 0 and value % SIZE_MULTIPLE == 0,
                f"{name} is {value}; it must be a positive multiple of {SIZE_MULTIPLE}, such as {near}.",
            )
            require(value <= MAX_SIDE, f"{name} is {value}; it must be {MAX_SIDE} or less, which is all that videos can hold.")
        near = max(0, round((self.num_frames - 1) / 4)) * 4 + 1
        require(self.num_frames > 0 and self.num_frames % 4 == 1, f"num_frames is {self.num_frames}; it must be 4n + 1, such as {near}.")
        require(self.num_frames <= MAX_FRAMES, f"num_frames is {self.num_frames}; it must be {MAX_FRAMES} or less.")
        require(1 <= self.num_steps <= MAX_STEPS, f"num_steps is {self.num_steps}; it must be between 1 and {MAX_STEPS}.")
        require(0 < self.shift < float("inf"), f"shift is {self.shift}; it must be above 0 (the official value is 7).")
        require(
            self.linear_steps is None or self.num_steps / 40 <= self.linear_steps < self.num_steps,
            f"linear_steps is {self.linear_steps}; it must be below num_steps, {self.num_steps}, and at least a fortieth of it.",
        )
        require(
            self.schedule == "shift" or self.num_steps >= 2,
            "A linear-quadratic schedule needs num_steps of 2 or more.",
        )
        require(
            self.guidance is None or 0 <= self.guidance < float("inf"),
            f"guidance is {self.guidance}; it must be 0 or more (the official value is 6), or none for weights without it.",
        )
        require(1 <= self.cfg_scale < float("inf"), f"cfg_scale is {self.cfg_scale}; it must be 1 (off) or more.")
        require(self.seed is None or 0 <= self.seed <= MAX_SEED, f"seed is {self.seed}; it must be between 0 and {MAX_SEED}.")


def check_guidance(guidance: float | None, embedded: bool, weights: object) -> None:
    """Refuse a guidance scale for weights without embedded guidance, and none for those with it; `weights` is what to call them."""
    if embedded:
        require(guidance is not None, f"guidance is none, but {weights} need an embedded guidance scale (the official value is 6).")
    else:
        require(guidance is None, f"guidance is {guidance}, but {weights} have no embedded guidance; set it to none, and use cfg_scale.")


def check_prompt(prompt: str, name: str = "The prompt", *, empty_ok: bool = False) -> None:
    """Refuse what cannot be a prompt: empty, or so long that it must be a mistake."""
    require(empty_ok or bool(prompt.strip()), f"{name} is empty; describe the video in a sentence or two.")
    halves = not prompt.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in prompt)
    require(not halves, f"{name} holds half a character (a lone surrogate), which no file can keep; type it again.")
    require(
        len(prompt) <= MAX_PROMPT_CHARACTERS,
        f"{name} has {len(prompt)} characters; the limit is {MAX_PROMPT_CHARACTERS}, and the model reads about the first 1,000.",
    )


def parse_bytes(text: str, name: str) -> int:
    """The number of bytes that people write as 24GB (10^9) or 24GiB (2^30)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB)", text, flags=re.IGNORECASE)
    require(match is not None and float(match[1]) > 0, f"{name} is {text!r}; it must be a number of GB or GiB, such as 24GB.")
    assert match is not None
    return round(float(match[1]) * {"GB": 10**9, "GIB": 2**30}[match[2].upper()])


LoadKey = Literal["module", "ema"]  # of an official transformer's file: the weights, or their average
DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Runtime:
    """How to compute. Changes speed, memory and rounding, never what was asked for."""

    device: str = "auto"
    """auto (CUDA if there is one, else cpu), cpu, cuda, cuda:1 …"""
    dtype: DType = "auto"
    """of the transformer; auto: bfloat16 on CUDA; on a CPU float32, or bfloat16 if it is stored in more than 2 GiB"""
    vae_dtype: DType = "auto"
    """auto: float16 on CUDA; on a CPU as above"""
    text_dtype: DType = "auto"
    """auto: float16 on CUDA; on a CPU as above"""
    attention: Literal["auto", "sdpa", "matmul", "chunked"] = "auto"
    """sdpa: PyTorch's fused kernels; matmul: two matrix products, for short sequences; chunked: the same in pieces for a CPU's cache; auto:
    on a CPU the faster of sdpa and chunked, measured once at about the video's length and recorded, else sdpa"""
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
    timeout: int = 120
    """seconds for which one GPU waits for a sign of life from another before all end (docs/many-gpus.md)"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.fp8_matmul:
            object.__setattr__(self, "fp8", True)
        for name in ("ulysses_degree", "ring_degree"):
            degree = getattr(self, name)
            require(degree is None or degree >= 1, f"{name} is {degree}; it must be 1 or more.")
        require(1 <= self.timeout <= MAX_TIMEOUT, f"timeout is {self.timeout}; it must be between 1 and {MAX_TIMEOUT} seconds.")
        kind, _, index = self.device.partition(":")
        require(
            kind in ("auto", "cpu", "cuda", "mps") and (not index or (index.isdigit() and kind == "cuda")),
            f"device is {self.device!r}; it must be auto, cpu, cuda, cuda:N or mps.",
        )


@dataclass(frozen=True)
class Output:
    """Where videos go and in what form."""

    out: Path = Path("results")
    """folder for the files; made if it is missing"""
    format: Literal["mp4", "webm", "gif", "png", "latents"] = "mp4"
    """mp4: H.264; webm: AV1; png: a folder of frames, or one image; latents: undecoded, for `hunyuan-video decode`"""
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
            len(self.name_suffix.encode()) <= 50 and all(c.isalnum() or c in "-_." for c in self.name_suffix),
            f"name_suffix is {self.name_suffix!r}; it may hold up to 50 bytes of letters, digits, '-', '_' and '.'.",
        )
        limit = {"mp4": 51, "webm": 63}.get(self.format)
        if self.crf is not None:
            require(limit is not None, f"crf is {self.crf}, but {self.format} has no such setting; use it with mp4 or webm.")
            require(0 <= self.crf <= (limit or 0), f"crf is {self.crf}; for {self.format} it must be between 0 and {limit}.")

    @property
    def suffix(self) -> str:
        return ".safetensors" if self.format == "latents" else f".{self.format}"
