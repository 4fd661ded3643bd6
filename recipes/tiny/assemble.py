"""Puts the trained parts into one folder in the official layout: `python recipes/tiny/assemble.py RUNS OUT [GIVEN …]`.

GIVEN is what of a video's frames the transformer knows to be given: some of first, last, continuation (or else first).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

# What the miniature was trained for: guidance is embedded, so one pass is enough; and it goes on from a given first frame.
DEFAULTS = {
    "height": 128,
    "width": 128,
    "num_frames": 33,
    "num_steps": 20,
    "shift": 2.7,  # sqrt(576 / shift_tokens), as transformer.toml trains a clip of 576 tokens
    "guidance": 2.0,  # distilled from 1 to 4
    "cfg_scale": 1.0,
    "negative_prompt": "",
    "image_to_video": True,
    "trained": {"pixels": [64, 128], "frames": 33},
}


def assemble(runs: Path, out: Path, given: list[str]) -> None:
    model = out / "hunyuan-video-t2v-720p"
    (model / "transformers").mkdir(parents=True, exist_ok=True)
    shutil.copy(runs / "distilled" / "transformer.safetensors", model / "transformers" / "mp_rank_00_model_states.safetensors")
    shutil.copytree(runs / "vae" / "vae", model / "vae", dirs_exist_ok=True)
    for name in ("text_encoder", "text_encoder_2"):
        shutil.copytree(runs / "text" / name, out / name, dirs_exist_ok=True)
    (out / "generation_config.json").write_text(
        json.dumps(DEFAULTS | ({"given": given} if given else {}), indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    assemble(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
