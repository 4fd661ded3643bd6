"""`python3 gradio_server.py`: a web page that makes videos, with the official flags. `hunyuan-video demo` is the same in our own words."""

from __future__ import annotations

import logging
import sys

try:
    from hunyuan_video.signals import enter
except ModuleNotFoundError as error:
    sys.exit(f"{sys.argv[0]}: {error}; install this repository first (pip install '.[demo]') and use the Python it was installed for.")


def main() -> int:
    from hunyuan_video.cli import run_guarded
    from hunyuan_video.commands import official_page

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hunyuan_video").setLevel(logging.INFO)
    return run_guarded(official_page.run)


if __name__ == "__main__":
    enter(main)
