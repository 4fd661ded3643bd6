"""What ours import of others. Whatever is imported while jaxtyping's hook imports ours, Python compiles from its source: nine seconds."""

# ruff: noqa: F401
from __future__ import annotations

import beartype.claw
import beartype.vale
import einops
import huggingface_hub
import PIL.ImageDraw
import tensorboard.backend.event_processing.event_accumulator
import torch
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.run
import torch.utils.tensorboard
import transformers.models.auto.tokenization_auto
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
