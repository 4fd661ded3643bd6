"""What CUDA could change, where a tiny model shows it. (Other GPU tests stand beside those of what they test.)"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import TINY, randomize
from measure import deviation
from test_pipeline import SMALL

from hunyuan_video.config import Runtime
from hunyuan_video.kernels import choice, table
from hunyuan_video.models import attention
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.chunk import in_chunks
from hunyuan_video.transforms.phase_upsample import upsample_by_phases
from hunyuan_video.transforms.tiling import TileSizes, tiled_decode

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
HALF = {"dtype": "bfloat16", "vae_dtype": "float16", "text_dtype": "float16"}


@pytest.mark.parametrize("offload", ["models", "blocks"])
def test_offload_changes_no_bit_of_a_video(official_tree, offload):
    resident, moving = (
        HunyuanVideo.load(official_tree, Runtime(device="cuda", offload=kind, **HALF))("A cat.", SMALL) for kind in ("none", offload)
    )
    assert torch.equal(moving.latents, resident.latents) and (moving.frames == resident.frames).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", [name for name, kernel in table.KERNELS.items() if kernel.device != "cpu" and name != "sage"])
def test_every_exact_attention_kernel_computes_the_same(kind, masked):
    if reason := choice.why_not(kind, torch.device("cuda"), torch.bfloat16, 128):
        pytest.skip(reason)
    q, k, v = torch.randn(3, 2, 300, 4, 128, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(300) < torch.tensor([300, 200])[:, None])[:, None] if masked else None
    expected = attention.matmul(q, k, v, mask)
    given = (x.to("cuda", torch.bfloat16) for x in (q, k, v))
    actual = table.load(kind)(*given, None if mask is None else mask.cuda())
    assert deviation(actual.cpu(), expected) < 0.02


@pytest.mark.parametrize("matmul", [False, True])
@torch.no_grad()
def test_8_bits_come_near_to_what_they_give_on_a_cpu(matmul):
    if matmul and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs a GPU of compute capability 8.9 or more")
    # Without guidance, whose large sinusoids depend on the last bit; see test_bfloat16_runs_on_cpu_and_stays_close.
    model = randomize(HunyuanVideoTransformer(replace(TINY, guidance_embed=False))).to(torch.bfloat16)
    fp8.quantize(model)
    states, pooled = torch.randn(1, 7, TINY.text_dim), torch.randn(1, TINY.pooled_dim)
    x, mask = torch.randn(1, 4, 2, 4, 6), torch.ones(1, 7, dtype=torch.bool)

    def velocity(model: HunyuanVideoTransformer, device: str) -> torch.Tensor:
        condition = model.condition(states.to(device, torch.bfloat16), mask.to(device), pooled.to(device, torch.bfloat16))
        return model(x.to(device), torch.full((1,), 700.0, device=device), condition)

    expected = velocity(model, "cpu")  # expanded, for not every PyTorch multiplies in 8 bits on a CPU
    model.cuda()
    if matmul:
        fp8.multiply_in_8_bits(model)
    assert deviation(velocity(model, "cuda").cpu(), expected) < 0.05


@torch.no_grad()
def test_half_precision_tiles_decode_as_the_cpus_float32(vae: CausalVAE):
    z = torch.randn(1, 4, 5, 8, 6, generator=torch.Generator().manual_seed(0))
    expected = tiled_decode(vae, z, TileSizes(32, 16))
    upsample_by_phases(vae.to("cuda", torch.float16))
    in_chunks(vae)
    assert deviation(tiled_decode(vae, z.to("cuda", torch.float16), TileSizes(32, 16)).cpu(), expected) < 0.02
