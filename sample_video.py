"""`python3 sample_video.py`: text to video with the official flags. `hunyuan-video generate` is the same in our own words."""

from __future__ import annotations

import logging
import sys

try:
    from hunyuan_video.signals import enter
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: {error}; install this repository first (pip install .) and use the Python it was installed for.")


def main() -> int:
    from hunyuan_video.apps import official
    from hunyuan_video.cli import run_together

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hunyuan_video").setLevel(logging.INFO)
    return run_together(official.run)


if __name__ == "__main__":
    enter(main)
