"""`torchrun --nproc_per_node=8 sample_video_parallel.py`: one video on several GPUs, with the official flags. It is sample_video.py by another name."""

from __future__ import annotations

from sample_video import enter, main

if __name__ == "__main__":
    enter(main)
