"""`python3 sample_image2video.py`: image to video with the official flags. `hunyuan-video generate --image` is the same in our words."""

from __future__ import annotations

import logging
import sys

try:
    from hunyuan_video.signals import enter
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: {error}; install this repository first (pip install .) and use the Python it was installed for.")


def main() -> int:
    from hunyuan_video.apps import official_image
    from hunyuan_video.cli import run_together

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hunyuan_video").setLevel(logging.INFO)
    return run_together(official_image.run)


if __name__ == "__main__":
    enter(main)
