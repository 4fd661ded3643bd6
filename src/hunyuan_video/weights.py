"""Where weights are: the official folder tree, the embedded miniature, and what is missing. Imports no torch.

ROOT/
  generation_config.json                                   optional: `Sampling` defaults of these weights, and "image_to_video"
  hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt    (or .safetensors)
  hunyuan-video-t2v-720p/vae/{config.json, pytorch_model.pt}        (or .safetensors)
  text_encoder/                                            Llama language model and tokenizer
  text_encoder_2/                                          CLIP-L and tokenizer
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hunyuan_video.config import Sampling

EMBEDDED = Path(__file__).parent / "tiny"
DEFAULT_ROOT = Path("ckpts")
HOW_TO_GET = (
    "`hf download tencent/HunyuanVideo --local-dir ckpts` fetches the official transformer and VAE "
    "(39 GB; docs/weights.md adds the two text encoders)"
)
_MODEL = "hunyuan-video-t2v-720p"
_TRANSFORMER = f"{_MODEL}/transformers/mp_rank_00_model_states.pt"


@dataclass(frozen=True)
class Weights:
    """The four parts of a model on disk."""

    root: Path
    transformer: Path
    vae: Path
    text_encoder: Path
    text_encoder_2: Path
    load_key: str = "module"

    @property
    def is_embedded(self) -> bool:
        return self.root == EMBEDDED

    def missing(self) -> list[Path]:
        return [path for path in (self.transformer, self.vae, self.text_encoder, self.text_encoder_2) if not path.exists()]

    def sampling(self) -> Sampling:
        """The defaults these weights were made for."""
        return Sampling(**{name: value for name, value in self._generation_config().items() if name != "image_to_video"})

    @property
    def image_to_video(self) -> bool:
        """Whether these weights say that they were trained to go on from a given first frame."""
        return self._generation_config().get("image_to_video", False)

    def _generation_config(self) -> dict[str, Any]:
        path = self.root / "generation_config.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def check(self, sampling: Sampling) -> None:
        """Refuse settings that these weights say they cannot honour, before they are read.

        Raises:
            ValueError: guidance is given to weights without it, or the other way round; or an image to weights that only know text.
        """
        if sampling.image is not None and not self.image_to_video:
            raise ValueError(f"image is {sampling.image}, but the weights in {self.root} were trained for text alone; leave it out.")
        embedded = _names_guidance(self.transformer)
        if embedded is True and sampling.guidance is None:
            raise ValueError(f"guidance is None, but {self.transformer} was distilled with one (the official value is 6).")
        if embedded is False and sampling.guidance is not None:
            raise ValueError(
                f"guidance is {sampling.guidance}, but {self.transformer} has no embedded guidance; set it to None and use cfg_scale."
            )

    def fingerprint(self) -> str:
        """Identifies the model in a video's metadata: a SHA-256 over the sizes and evenly spread samples of all weight files, which takes
        a moment even for 40 GB. It tells models apart; it is not a check against tampering."""
        return fingerprint_of(self.load_key, self.transformer, self.vae, self.text_encoder, self.text_encoder_2)

    def encoders_fingerprint(self) -> str:
        """As `fingerprint`, of what makes latents and text states: all but the transformer."""
        return fingerprint_of("", self.vae, self.text_encoder, self.text_encoder_2)


def fingerprint_of(start: str, *parts: Path) -> str:
    """A digest of `start` and of weight files, or of those in folders."""
    digest = hashlib.sha256(start.encode())
    for part in parts:
        files = [part] if part.is_file() else sorted(f for f in part.iterdir() if f.suffix in {".safetensors", ".bin", ".pt", ".json"})
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as stream:
                for position in range(0, size, max(65_536, size // 64)):
                    stream.seek(position)
                    digest.update(stream.read(65_536))
    return digest.hexdigest()[:16]


def _names_guidance(path: Path) -> bool | None:
    """Whether a checkpoint has the guidance embedding, from the list of tensor names at its start; None if that cannot be told."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                names = file.read(min(int.from_bytes(file.read(8), "little"), 2**24))
        else:
            with zipfile.ZipFile(path) as archive:
                (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
                names = archive.read(index)
    except (OSError, ValueError, zipfile.BadZipFile):  # loading it will say what is wrong
        return None
    return b"guidance_in.mlp.0.weight" in names


def locate(root: Path, transformer: Path | None = None, load_key: str = "module") -> Weights:
    """The parts under `root`, present or not; `transformer` overrides one part with a file or a folder of files."""
    transformer = transformer or _existing(root / _TRANSFORMER)
    if transformer.is_dir():
        candidates = [transformer / f"pytorch_model_{load_key}.pt", *sorted(transformer.glob("*_model_states.pt"))]
        transformer = next((file for file in candidates if file.exists()), candidates[0])
    return Weights(root, transformer, root / _MODEL / "vae", root / "text_encoder", root / "text_encoder_2", load_key)


def _existing(path: Path) -> Path:
    """`path`, or the same in safetensors if only that is there."""
    safe = path.with_suffix(".safetensors")
    return safe if safe.exists() and not path.exists() else path


def find(root: Path | None, transformer: Path | None = None, load_key: str = "module") -> Weights:
    """The weights at `root`, complete.

    Raises:
        FileNotFoundError: something is missing; says what, where it was looked for, and how to get it.
    """
    weights = locate(root or DEFAULT_ROOT, transformer, load_key)
    if missing := weights.missing():
        what = "No HunyuanVideo weights were found" if len(missing) == 4 else "The HunyuanVideo weights are incomplete"
        names = ", ".join(str(path) for path in missing)
        raise FileNotFoundError(f"{what}: looked for {names}; {HOW_TO_GET}.")
    return weights


def find_or_embedded(root: Path | None) -> Weights:
    """The weights at `root`; without a root, the ones in ./ckpts if they are complete, else the embedded miniature."""
    if root is not None:
        return find(root)
    official = locate(DEFAULT_ROOT)
    return official if not official.missing() else locate(EMBEDDED)
