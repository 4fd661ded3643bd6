"""`torchrun --nproc_per_node=8 sample_video_parallel.py`: `sample_video.py` by the name it has in the official README."""

from __future__ import annotations

from sample_video import enter, main

if __name__ == "__main__":
    enter(main)
