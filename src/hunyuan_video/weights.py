"""Where weights are: the official folder tree, the embedded miniature, and what is missing. Imports no torch.

ROOT/
  generation_config.json                 optional: `Sampling` defaults of these weights, and "negative_prompt", "image_to_video"
                                         and "trained": {"pixels": [smallest, largest side], "frames": most}, and "given": what of a
                                         video's frames they know to be given, some of "first", "last" (with it), "continuation";
                                         Hugging Face calls other settings so, which are passed over
  hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt    (or .safetensors)
  hunyuan-video-t2v-720p/vae/{config.json, pytorch_model.pt}        (or .safetensors)
  text_encoder/                                            Llama language model and tokenizer
  text_encoder_2/                                          CLIP-L and tokenizer

and beside it, or alone, the image-to-video model, which is meant where a video is to begin with a picture, or where its folder is named:

  hunyuan-video-i2v-720p/{transformers/, vae/}             as above
  text_encoder_i2v/                                        the un-cut LLaVA (text_encoder/, where that is un-cut)

or a Diffusers folder, known by its model_index.json: transformer/, vae/, text_encoder/, tokenizer/ … A folder of the Hugging Face
cache, models--OWNER--NAME, stands for its snapshot.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from hunyuan_video import headers
from hunyuan_video.config import (
    I2V_NEGATIVE_PROMPT,
    Conditioning,
    FullSampling,
    Given,
    LoadKey,
    Runtime,
    Sampling,
    check_guidance,
    check_prompt,
    require,
)
from hunyuan_video.request import Request

log = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parent / "tiny"
DEFAULT_ROOT = Path("ckpts")
OVERLAP = 9  # frames of a clip
HOW_TO_GET = "`hunyuan-video download` fetches the official weights (45 GB; docs/weights.md says more)"
HOW_TO_GET_I2V = "`hunyuan-video download --i2v` fetches the official ones for image to video (45 GB; docs/image-to-video.md says more)"
_INDEX, _GENERATION, _SCHEDULER = "model_index.json", "generation_config.json", "scheduler/scheduler_config.json"
_OTHERS = ("negative_prompt", "image_to_video", "trained", "given")
_SAMPLING = tuple(field.name for field in fields(Sampling) if field.name != "seed")
MAX_JSON = 2**26  # bytes; the largest real one is a tokenizer of 17 MB
T2V, I2V = "hunyuan-video-t2v-720p", "hunyuan-video-i2v-720p"
_SEEING_ENCODER = "text_encoder_i2v"
_SEEING = "HunyuanVideoImageToVideoPipeline"
_SUFFIXES = (".pt", ".safetensors", ".gguf")
# What trainers call the LoRA in a folder: PEFT and diffusion-pipe; Diffusers, FastVideo and finetrainers; `hunyuan-video train lora`.
_LORAS = (
    "adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin",
    "lora_kohya.safetensors",
)  # fmt: skip
# A part stored in more bytes than this is computed in bfloat16 on a CPU, too, and stays in its file: more would not fit most machines.
LARGE = 2**31


@dataclass(frozen=True)
class Weights:
    """The four parts of a model on disk. What they say of themselves is read once."""

    root: Path
    transformer: Path
    vae: Path
    text_encoder: Path
    text_encoder_2: Path
    load_key: LoadKey = "module"
    sees: bool = False
    """whether the language model is the un-cut LLaVA, which sees the picture that a video begins with, as in the official image-to-video
    model"""

    @property
    def is_embedded(self) -> bool:
        return self.root == EMBEDDED

    def missing(self) -> list[Path]:
        return [path for path in (self.transformer, self.vae, self.text_encoder, self.text_encoder_2) if not path.exists()]

    def sampling(self) -> FullSampling:
        """The defaults these weights were made for. Raises a ValueError if the file that says so is damaged, or says what cannot be."""
        own: dict[str, Any] = {"stability": "stable", "positions": "riflex"} if self.sees else {}
        stated = FullSampling(**own | {name: value for name, value in self._stated.items() if name in _SAMPLING})
        return replace(stated, guidance=None) if self.embedded_guidance is False else stated

    @property
    def negative_prompt(self) -> str | None:
        """The one these weights were made for; None if they do not say."""
        return self._stated.get("negative_prompt", I2V_NEGATIVE_PROMPT if self.sees else None)

    @property
    def is_diffusers(self) -> bool:
        return (self.root / _INDEX).is_file()

    @cached_property
    def conditioning(self) -> Conditioning:
        """How these weights were trained to be told what a video begins with: by their tensors, by what they are, or by what they say."""
        if _concatenates(self.transformer):
            return "latent_concat"
        return "first_frame" if self.sees or self._stated.get("image_to_video", False) else "text"

    @property
    def given(self) -> tuple[Given, ...]:
        """What of a video's latent frames they were trained to be given; what else is given takes a way that needs no training."""
        if self.conditioning == "text":
            return ()
        return tuple(self._stated.get("given", ("first",)))

    @property
    def overlap(self) -> int:
        """With how many frames of a clip what comes after it begins, unless somebody says another number: as many as show where things
        move, where these weights were trained for that or know no first frame; one, where they know that alone."""
        return 1 if "first" in self.given and "continuation" not in self.given else OVERLAP

    @property
    def image_to_video(self) -> bool:
        """Whether a video may begin with a picture."""
        return self.conditioning != "text"

    @property
    def needs_picture(self) -> bool:
        """Whether every video must."""
        return self.sees or self.conditioning == "latent_concat"

    @property
    def trained(self) -> tuple[int, int, int] | None:
        """The smallest and the largest side in pixels and the most frames that they were trained on; None if they do not say."""
        stated = self._stated.get("trained")
        return None if stated is None else (*stated["pixels"], stated["frames"])

    @cached_property
    def embedded_guidance(self) -> bool | None:
        """Whether the transformer was distilled with a guidance scale; None if that cannot be told before it is loaded."""
        if not self.transformer.is_dir():
            return headers.embeds_guidance(self.transformer)
        return _stated_by(self.transformer, "guidance_embeds", bool)

    @cached_property
    def _stated(self) -> dict[str, Any]:
        """What these weights say of how they are used, checked; other programs' settings in the same files are passed over."""
        stated: dict[str, Any] = {}
        if self.is_diffusers and (path := self.root / _SCHEDULER).is_file():  # FastHunyuan's shift is another than HunyuanVideo's
            scheduler = read_json(path)
            if (name := next((name for name in ("shift", "flow_shift") if name in scheduler), None)) is not None:
                stated |= _checked({"shift": scheduler[name]}, path)
        if (path := self.root / _GENERATION).is_file():
            content = read_json(path)
            if misplaced := sorted(content.keys() & {field.name for field in fields(Runtime)}):
                names = ", ".join(misplaced)
                log.warning(
                    "%s sets %s, which is for a run to say and not for weights, and is passed over; give it as an option.", path, names
                )
            stated |= _checked(content, path)
        return stated

    def check(self, request: Request) -> None:
        """Refuse settings that these weights say they cannot honour, before they are read.

        Raises:
            ValueError: guidance is given to weights without it, or the other way round; a picture to weights that only know text; or what
                was given and what these weights were made for do not go together.
        """
        sampling = request.complete(self.sampling())
        request.check_told(self.conditioning)
        if request.image is not None and not self.image_to_video:
            raise ValueError(
                f"image is given, but the weights in {self.root} were trained for text alone; give it as a keyframe at 0 (--keyframe "
                f"0=FILE), which needs no training, or take others: {HOW_TO_GET_I2V}."
            )
        require(
            request.video is None or not self.needs_picture,
            f"video is given, but the weights in {self.root} begin every video with a picture; use weights for text to make a clip anew.",
        )
        if request.image is None and self.needs_picture:
            raise ValueError(
                f"The weights in {self.root} begin every video with a picture, and none is given; give one with image (--image), or use "
                "weights for text."
            )
        if request.negative_prompt and sampling.cfg_scale == 1:
            log.warning("The negative prompt does nothing while cfg_scale is 1; values such as 3 let it act, in twice the time.")
        if request.sampling.linear_steps is not None and sampling.schedule == "shift":
            log.warning("linear_steps does nothing while the schedule is shift; it is for linear-quadratic.")
        self._warn_of_sizes(sampling)
        if self.embedded_guidance is not None:
            check_guidance(sampling.guidance, self.embedded_guidance, self.transformer)

    def _warn_of_sizes(self, sampling: FullSampling) -> None:
        """Say what was never trained, where these weights say what was."""
        if self.trained is None:
            return
        (smallest, largest, frames), sides = self.trained, (sampling.height, sampling.width)
        if not smallest <= min(sides) <= max(sides) <= largest or sampling.num_frames > frames:
            log.warning(
                "These weights were trained at %d to %d pixels a side and up to %d frames; %d frames of %dx%d will look worse.",
                *(smallest, largest, frames, sampling.num_frames, sampling.height, sampling.width),
            )


def _concatenates(transformer: Path) -> bool:
    """Whether it takes noisy latents, as many channels of a picture's, and a mask: the only odd number there is."""
    folder = transformer.is_dir()
    in_channels = _stated_by(transformer, "in_channels", int) if folder else headers.in_channels(transformer)
    return in_channels is not None and in_channels % 2 == 1


def _stated_by(folder: Path, name: str, kind: type[Any]) -> Any:
    """What the config of a Diffusers transformer says, if it is right; else loading it will say what is wrong."""
    try:
        stated = read_json(folder / "config.json").get(name)
    except (OSError, ValueError):
        return None
    return stated if isinstance(stated, kind) else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a `.json` file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(content).__name__}, not an object); fetch it again.")
    return content


def _checked(stated: dict[str, Any], path: Path) -> dict[str, Any]:
    """Those of the values in a file that are known here, each right."""
    known = {name: value for name, value in stated.items() if name in (*_SAMPLING, *_OTHERS)}
    negative, image_to_video = known.get("negative_prompt", ""), known.get("image_to_video", False)
    try:
        FullSampling(**{name: value for name, value in known.items() if name in _SAMPLING})
        require(isinstance(negative, str), f"negative_prompt is {negative!r}; it must be str.")
        check_prompt(negative, "negative_prompt", empty_ok=True)
        require(isinstance(image_to_video, bool), f"image_to_video is {image_to_video!r}; it must be bool.")
        given = known.get("given", [])
        right = isinstance(given, list) and all(name in get_args(Given) for name in given)
        require(right, f"given is {given!r}; it must be a list of some of {', '.join(get_args(Given))}.")
        match known.get("trained"):
            case None | {"pixels": [int(), int()], "frames": int()}:
                pass
            case trained:
                raise ValueError(f'trained is {trained!r}; it must be such as {{"pixels": [64, 128], "frames": 33}}.')
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return known


def is_large(part: Path) -> bool:
    """Whether a part, a file or a folder, is one of those that decide whether a model fits into a machine."""
    files = [part] if part.is_file() else part.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file()) > LARGE


def lora_in(folder: Path) -> Path | None:
    """The LoRA in a folder that a trainer left; None if it is no such folder. Training goes on into the same names, so it is the newest."""
    found = (_snapshot(folder) / name for name in _LORAS)
    return next((file for file in found if file.is_file()), None)


def lora_file(path: Path) -> Path:
    """The file with the weights of a LoRA, which may be named by its folder.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it has several.
    """
    if not path.is_dir():
        return path
    others = [file for file in sorted(_snapshot(path).iterdir()) if file.suffix in (".safetensors", ".pt", ".bin") and file.is_file()]
    if found := lora_in(path) or (others[0] if len(others) == 1 else None):
        return found
    if others:
        raise ValueError(f"{path} has several weight files ({', '.join(file.name for file in others[:4])}); name the LoRA among them.")
    on_its_way = sorted((path / "loras").glob("step-*.safetensors"))
    newest = f"; its newest so far is {on_its_way[-1]}" if on_its_way else ""
    unfinished = f": the training in it has not come to an end{newest}" if (path / "checkpoints").is_dir() else ""
    raise FileNotFoundError(f"{path} holds no LoRA (such as {_LORAS[0]}, {_LORAS[2]} or {_LORAS[4]}){unfinished}.")


def locate(root: Path, transformer: Path | None = None, load_key: LoadKey = "module", *, picture: bool = False) -> Weights:
    """The parts under `root`, present or not; `transformer` overrides one part with a file or folder of any layout. `picture` says that a
    video is to begin with one, for a root with the official models for text and for pictures. The folder of one of them stands for it."""
    root = _snapshot(root)
    if (root / _INDEX).is_file():
        sees = _pipeline_of(root) == _SEEING
        parts = root / "transformer", root / "vae", root / "text_encoder"
    else:
        named = root.name if root.name in (T2V, I2V) and (root / "transformers").is_dir() else None
        root = root if named is None else root.parent
        sees = named == I2V or (named is None and _means_i2v(root, transformer, picture))
        parts = _official(root, sees)
    return Weights(root, _transformer_in(transformer or parts[0], load_key), *parts[1:], root / "text_encoder_2", load_key, sees)


def official_tree(root: Path, *, sees: bool) -> Weights:
    """Where the parts of one of the official models go in an empty tree."""
    transformers, vae, encoder = _official(root, sees)
    return Weights(root, _transformer_in(transformers, "module"), vae, encoder, root / "text_encoder_2", sees=sees)


def _means_i2v(root: Path, transformer: Path | None, picture: bool) -> bool:
    """Whether of an official tree the image-to-video model is meant."""
    if transformer is not None and _concatenates(transformer):
        return True
    has_t2v, has_i2v = (root / T2V).is_dir(), (root / I2V).is_dir() or (root / _SEEING_ENCODER).is_dir()
    return has_i2v and (picture or not has_t2v)


def _official(root: Path, sees: bool) -> tuple[Path, Path, Path]:
    """The transformer's folder, the VAE and the language model in an official tree. Both models have the same VAE, and the same LLaVA."""
    if not sees:
        return root / T2V / "transformers", root / T2V / "vae", root / "text_encoder"
    vaes, encoders = (root / I2V / "vae", root / T2V / "vae"), (root / _SEEING_ENCODER, root / "text_encoder")
    vae, encoder = (next((place for place in places if place.is_dir()), places[0]) for places in (vaes, encoders))
    return root / I2V / "transformers", vae, encoder


def _pipeline_of(root: Path) -> str:
    """For which of Diffusers' pipelines a folder is. Raises a ValueError if the file that says it is damaged."""
    return str(read_json(root / _INDEX).get("_class_name", "HunyuanVideo"))


def _snapshot(root: Path) -> Path:
    """What a folder of the Hugging Face cache stands for; any other is itself."""
    main = root / "refs" / "main"
    return root / "snapshots" / main.read_text(encoding="utf-8").strip() if main.is_file() else root


def _transformer_in(path: Path, load_key: LoadKey) -> Path:
    """The file in a folder of official ones; any other path stays what it is."""
    if (path / _INDEX).is_file():
        path = path / "transformer"
    if path.is_file() or (path / "config.json").is_file():
        return path
    official = path / "mp_rank_00_model_states.pt"
    named = [path / f"pytorch_model_{load_key}.pt", official, official.with_suffix(".safetensors"), *sorted(path.glob("*_model_states.pt"))]
    if found := [file for file in named if file.exists()]:
        return found[0]
    others = [file for file in sorted(path.glob("*")) if file.suffix in _SUFFIXES and not file.stem.endswith("_map")]
    return others[0] if len(others) == 1 else official


def find(root: Path | None, transformer: Path | None = None, load_key: LoadKey = "module", *, picture: bool = False) -> Weights:
    """The weights at `root`, complete. As in `locate`.

    Raises:
        FileNotFoundError: something is missing; says what, where it was looked for, and how to get it.
        ValueError: it is another model's folder.
    """
    if root is not None and root.is_file():
        raise FileNotFoundError(
            f"{root} is one file, but weights are the folder of a whole model; a transformer alone goes with the other parts of one by "
            f"`--weights FOLDER --transformer {root}`, or into its {T2V}/transformers."
        )
    if transformer is not None and not transformer.exists():
        raise FileNotFoundError(f"There is no transformer {transformer}; give a file or folder that is there.")
    weights = locate(root or DEFAULT_ROOT, transformer, load_key, picture=picture)
    if weights.is_diffusers:
        pipeline = _pipeline_of(weights.root)
        ours = pipeline.startswith(("HunyuanVideo", "HunyuanSkyreels")) and not pipeline.startswith("HunyuanVideo15")
        require(ours, f"{weights.root} is a model for Diffusers' {pipeline}, not HunyuanVideo; {HOW_TO_GET}.")
    if missing := weights.missing():
        what = "No HunyuanVideo weights were found" if len(missing) == 4 else "The HunyuanVideo weights are incomplete"
        names = ", ".join(str(path) for path in missing)
        raise FileNotFoundError(f"{what}: looked for {names}; {HOW_TO_GET_I2V if weights.sees else HOW_TO_GET}.")
    return weights


def find_or_embedded(root: Path | None, transformer: Path | None = None, load_key: LoadKey = "module", *, picture: bool = False) -> Weights:
    """The weights at `root`; without a root, the ones in ./ckpts if they are complete, else the embedded miniature. As in `find`, one part
    may be another."""
    return find(root_or_embedded(root, transformer, picture=picture), transformer, load_key, picture=picture)


def root_or_embedded(root: Path | None, transformer: Path | None = None, *, picture: bool = False) -> Path:
    """Where `find_or_embedded` looks, whether or not something is there."""
    if root is not None:
        return root
    return EMBEDDED if locate(DEFAULT_ROOT, transformer, picture=picture).missing() else DEFAULT_ROOT
