"""The command `hunyuan-video`, also `python -m hunyuan_video`: stopped while it imports, it ends as it does later."""

from __future__ import annotations

from hunyuan_video.signals import enter


def console() -> None:
    enter(_main)


def _main() -> int:
    from hunyuan_video.cli import main

    return main()


if __name__ == "__main__":
    console()
