"""What a video takes, before anything is loaded: memory on the device and on the host, and time beside other ways to make it.

The stages of the pipeline run on the meta device, so the plan follows the code and has no formula of its own for what is alive inside a
block or a tile. Weights are added: all of them, those of the model that works, or (counted, as they come and go) two of its blocks.

Attention counts as a fused kernel, which keeps no scores.
"""

from hunyuan_video.plan.choice import OFFLOADS, choose, everything, fastest, flags, proposal, refusal, table
from hunyuan_video.plan.counting import META, count, denoise
from hunyuan_video.plan.parts import Parts, first_of, tokens_of
from hunyuan_video.plan.prediction import KEPT, OnCpu, Prediction, Stage, on_cpu, predict

__all__ = [
    "KEPT", "META", "OFFLOADS", "OnCpu", "Parts", "Prediction", "Stage", "choose", "count", "denoise", "everything", "fastest", "first_of",
    "flags", "on_cpu", "predict", "proposal", "refusal", "table", "tokens_of",
]  # fmt: skip
