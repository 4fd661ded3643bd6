"""What this machine's CPU can compute."""

from __future__ import annotations

from functools import cache


@cache
def multiplies_bfloat16() -> bool:
    """Whether PyTorch multiplies bfloat16 by instructions of this CPU, for which x86 needs AVX-512. Where it does not, it goes number by
    number, many times slower than in float32."""
    import torch  # some who ask read no weights

    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
