"""The transformer against the released names and shapes, the reference's tensors, and Diffusers."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from decimal import Decimal
from functools import partial

import pytest
import torch
from conftest import TINY, follow_last_bits, golden_config, manifest, randomize

from hunyuan_video.models import timestep
from hunyuan_video.models.rope import apply_rope, rope_table
from hunyuan_video.models.timestep import TimestepEmbedder, frequencies, timestep_table
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TokenRefiner, TransformerConfig, trunk

CPU = torch.device("cpu")


def shapes(config: TransformerConfig) -> dict[str, list[int]]:
    with torch.device("meta"):
        return {name: list(tensor.shape) for name, tensor in HunyuanVideoTransformer(config).state_dict().items()}


def test_every_name_and_shape_is_the_released_distilled_checkpoint():
    assert shapes(TransformerConfig()) == manifest("dit_hyvideo_t2_cfgdistill")


def test_without_guidance_embedding_exactly_its_four_tensors_are_missing():
    expected = {name: shape for name, shape in manifest("dit_hyvideo_t2_cfgdistill").items() if not name.startswith("guidance_in.")}
    assert shapes(TransformerConfig(guidance_embed=False)) == expected
    assert len(expected) == 852


def load(golden):
    model = HunyuanVideoTransformer(golden_config(golden.info["config"])).eval()
    model.load_state_dict(golden.state_dict(), strict=True)
    guidance = golden.tensors.get("in.guidance")
    condition = model.condition(golden["in.text_states"], golden["in.text_mask"].bool(), golden["in.text_states_2"], guidance)
    return model, condition


@pytest.mark.parametrize("name", ["dit_forward", "dit_forward_noguidance"])
@torch.no_grad()
def test_forward_equals_the_reference(golden, name):
    reference = golden(name)
    model, condition = load(reference)
    reference.check(model(reference["in.x"], reference["in.t"], condition), "out.x")


@torch.no_grad()
def test_every_intermediate_equals_the_reference(golden):
    reference = golden("dit_forward")
    model, condition = load(reference)
    seen: dict[str, torch.Tensor] = {}
    model.img_in.register_forward_hook(lambda _m, _i, out: seen.update({"img_in": out}))
    model.txt_in.register_forward_hook(lambda _m, _i, out: seen.update({"txt_in": out}))
    for i, block in enumerate(model.double_blocks):
        block.register_forward_hook(lambda _m, _i, out, i=i: seen.update({f"double{i}_img": out[0], f"double{i}_txt": out[1]}))
    for i, block in enumerate(model.single_blocks):
        block.register_forward_hook(lambda _m, _i, out, i=i: seen.update({f"single{i}": out}))
    model.final_layer.register_forward_hook(lambda _m, _i, out: seen.update({"final_tokens": out}))
    model(reference["in.x"], reference["in.t"], condition)

    real = reference["in.text_mask"].bool()
    allowed = reference.info["tolerance"]["mid"]
    for name, actual in seen.items():
        expected = reference[f"mid.{name}"]
        if "txt" in name:
            actual, expected = actual[real], expected[real]
        elif name.startswith("single"):
            num_img = expected.shape[1] - real.shape[1]
            actual = torch.cat([actual[:, :num_img].flatten(0, 1), actual[:, num_img:][real]])
            expected = torch.cat([expected[:, :num_img].flatten(0, 1), expected[:, num_img:][real]])
        torch.testing.assert_close(actual, expected, **allowed)
    assert len(seen) == 9


@torch.no_grad()
def test_clean_first_frame_equals_the_reference_token_replace(golden):
    reference = golden("dit_forward_i2v_token_replace")
    model, condition = load(reference)
    reference.check(model(reference["in.x"], reference["in.t"], condition, clean_frames=(0,)), "out.x")


@pytest.mark.parametrize("masked", [True, False])
@torch.no_grad()
def test_token_refiner_equals_the_reference(golden, masked):
    reference = golden("token_refiner")
    config = reference.info["config"]
    refiner = TokenRefiner(config["in_channels"], config["hidden_size"], config["heads_num"], config["depth"])
    refiner.load_state_dict(reference.state_dict(), strict=True)
    mask = reference["in.mask"].bool() if masked else None
    reference.check(refiner(*refiner.embed(reference["in.x"], mask), reference["in.t"], mask), "out.masked" if masked else "out.unmasked")


@pytest.mark.parametrize("grid", [0, 1])
def test_rope_tables_equal_the_reference(golden, grid):
    reference = golden("rope")
    sizes = reference.info["config"]["grids"][grid]
    rope = rope_table(tuple(sizes["grid"]), tuple(sizes["rope_dim_list"]), 256.0, CPU)
    reference.check(rope.cos.squeeze(1).repeat_interleave(2, dim=-1), f"out.table{grid}_cos")
    reference.check(rope.sin.squeeze(1).repeat_interleave(2, dim=-1), f"out.table{grid}_sin")


@pytest.mark.parametrize("suffix", ["0", "1", "1_bf16"])
def test_rotation_equals_the_reference(golden, suffix):
    reference = golden("rope")
    sizes = reference.info["config"]["grids"][int(suffix[0])]
    rope = rope_table(tuple(sizes["grid"]), tuple(sizes["rope_dim_list"]), 256.0, CPU)
    for name in ("q", "k"):
        rotated = apply_rope(reference[f"in.{name}{suffix}"], rope)
        assert rotated.dtype == reference[f"out.{name}_rot{suffix}"].dtype
        reference.check(rotated, f"out.{name}_rot{suffix}", "bf16" if suffix.endswith("bf16") else "out")


def test_text_positions_are_not_rotated():
    rope = rope_table((1, 2, 2), (4, 6, 6), 256.0, CPU).with_text(3)
    text = torch.randn(1, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    x = torch.cat([torch.randn(1, 4, 2, 16), text], dim=1)
    torch.testing.assert_close(apply_rope(x, rope)[:, 4:], text, atol=0, rtol=0)


@torch.no_grad()
def test_timestep_embedding_equals_the_reference(golden):
    reference = golden("timestep_embedding")
    reference.check(timestep_table(reference["in.t"], 256), "out.table", "table")
    reference.check(timestep_table(reference["in.t"], 7), "out.table_odd", "table")
    embedder = TimestepEmbedder(32)
    embedder.load_state_dict(reference.state_dict(), strict=True)
    reference.check(embedder(reference["in.t"], torch.float32), "out.mlp")


def test_frequencies_are_the_nearest_float32_on_every_machine():
    arguments = -torch.tensor(10000.0, dtype=torch.float64).log().float() * torch.arange(128, dtype=torch.float32) / 128
    exact = torch.tensor([float(Decimal(argument).exp()) for argument in arguments.tolist()], dtype=torch.float64)
    assert torch.equal(frequencies(128, CPU), exact.float())


def test_the_frequencies_of_the_reference_differ_from_ours_by_a_last_bit_at_most(golden):
    reference = golden("timestep_embedding")
    # The last bits of cosine and sine are below 1e-7; at t = 6016 that of the largest frequency is 3e-4.
    torch.testing.assert_close(timestep_table(reference["in.t"], 256), reference["out.table"], atol=5e-7, rtol=0)


def moved_by_bits(half: int, device: torch.device) -> torch.Tensor:
    moved = frequencies(half, device).numpy().copy()
    moved.view("int32")[10] += 3
    return torch.from_numpy(moved)


WRONG = {
    "spaced to the end": lambda half, device: 10000.0 ** (-torch.arange(half) / (half - 1)),
    "another period": lambda half, device: 10001.0 ** (-torch.arange(half) / half),
    "one of them three bits off": moved_by_bits,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@torch.no_grad()
def test_a_wrong_frequency_is_more_than_a_last_bit(golden, monkeypatch, wrong):
    reference, timesteps = golden("dit_forward"), golden("timestep_embedding")
    monkeypatch.setattr(timestep, "frequencies", wrong)
    follow_last_bits(monkeypatch, timesteps["in.t"], timesteps["out.table"])
    model, condition = load(reference)
    with pytest.raises(AssertionError, match="not close"):
        reference.check(model(reference["in.x"], reference["in.t"], condition), "out.x")


@torch.no_grad()
def test_sines_before_cosines_are_more_than_a_last_bit(golden, monkeypatch):
    reference = golden("dit_forward")
    monkeypatch.setattr(timestep, "timestep_table", lambda t, dim: timestep_table(t, dim).roll(dim // 2, dims=-1))
    model, condition = load(reference)
    with pytest.raises(AssertionError, match="not close"):
        reference.check(model(reference["in.x"], reference["in.t"], condition), "out.x")


def inputs(config: TransformerConfig, lengths: list[int], seed: int = 1, grid: tuple[int, int, int] = (3, 4, 6)):
    generator = torch.Generator().manual_seed(seed)
    batch, longest = len(lengths), 8
    x = torch.randn(batch, config.in_channels, *grid, generator=generator)
    states = torch.randn(batch, longest, config.text_dim, generator=generator)
    mask = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    pooled = torch.randn(batch, config.pooled_dim, generator=generator)
    return x, torch.full((batch,), 712.5), states, mask, pooled, torch.full((batch,), 6000.0)


@pytest.mark.parametrize("guidance_embed", [True, False])
@torch.no_grad()
def test_forward_equals_diffusers(diffusers_transformer, guidance_embed):
    model = HunyuanVideoTransformer(replace(TINY, guidance_embed=guidance_embed, rope_dims=(4, 6, 6)))
    randomize(model)
    x, t, states, mask, pooled, guidance = inputs(TINY, [3, 7])
    theirs = diffusers_transformer(model)(x, t, states, mask.long(), pooled, guidance, return_dict=False)[0]
    ours = model(x, t, model.condition(states, mask, pooled, guidance if guidance_embed else None))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_content_of_padding_changes_nothing(tiny_transformer):
    x, t, states, mask, pooled, guidance = inputs(TINY, [3, 7])
    before = tiny_transformer(x, t, tiny_transformer.condition(states, mask, pooled, guidance))
    states[~mask] = 100.0
    after = tiny_transformer(x, t, tiny_transformer.condition(states, mask, pooled, guidance))
    torch.testing.assert_close(before, after, atol=0, rtol=0)


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch_mates(tiny_transformer):
    x, t, states, mask, pooled, guidance = inputs(TINY, [3, 7])
    together = tiny_transformer(x, t, tiny_transformer.condition(states, mask, pooled, guidance))
    alone = tiny_transformer(x[:1], t[:1], tiny_transformer.condition(states[:1], mask[:1], pooled[:1], guidance[:1]))
    torch.testing.assert_close(together[:1], alone, atol=2e-6, rtol=1e-5)


def test_equal_lengths_need_no_mask(tiny_transformer):
    _, _, states, mask, pooled, guidance = inputs(TINY, [5, 5])
    condition = tiny_transformer.condition(states, mask, pooled, guidance)
    assert condition.mask is None and condition.txt.shape[1] == 5


@torch.no_grad()
def test_bfloat16_stays_close_to_float32(tiny_transformer):
    x, t, states, mask, pooled, guidance = inputs(TINY, [6])
    full = tiny_transformer(x, t, tiny_transformer.condition(states, mask, pooled, guidance))
    half = tiny_transformer.bfloat16()
    low = half(x, t, half.condition(states.bfloat16(), mask, pooled.bfloat16(), guidance))
    assert low.dtype == torch.bfloat16
    assert (low - full).norm() / full.norm() < 0.02


def test_missing_guidance_is_refused(tiny_transformer):
    _, _, states, mask, pooled, _ = inputs(TINY, [5])
    with pytest.raises(ValueError, match="guidance embedding, but none was given"):
        tiny_transformer.condition(states, mask, pooled)


def test_an_empty_prompt_is_refused(tiny_transformer):
    _, _, states, mask, pooled, guidance = inputs(TINY, [5])
    with pytest.raises(ValueError, match="no text token"):
        tiny_transformer.condition(states, mask & False, pooled, guidance)


@pytest.mark.parametrize(("change", "message"), [({"num_heads": 5}, "multiple of num_heads"), ({"rope_dims": (16, 56, 58)}, "add up to")])
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TransformerConfig(), **change)


def test_deleting_the_model_frees_it_without_the_garbage_collector():
    gc.disable()
    try:
        model = HunyuanVideoTransformer(TINY)
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_gradients_reach_every_parameter():
    model = HunyuanVideoTransformer(TINY)
    randomize(model).requires_grad_(True)
    x, t, states, mask, pooled, guidance = inputs(TINY, [3, 7])
    model(x, t, model.condition(states, mask, pooled, guidance)).square().mean().backward()
    # The last dual block's text MLP still feeds the single blocks; only the text rows of the last single block lead nowhere.
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_a_model_used_for_inference_can_be_trained_after(tiny_transformer):
    x, t, states, mask, pooled, guidance = inputs(TINY, [3])
    with torch.inference_mode():
        tiny_transformer(x, t, tiny_transformer.condition(states, mask, pooled, guidance))
    tiny_transformer.requires_grad_(True)
    tiny_transformer(x, t, tiny_transformer.condition(states, mask, pooled, guidance)).sum().backward()
    assert tiny_transformer.img_in.proj.weight.grad is not None


def test_tables_follow_the_latents(tiny_transformer):
    first, second = (tiny_transformer.rope((1, 4, 2, 4, 2 * width), CPU) for width in (3, 4))
    assert first.cos.shape[0] == 12 and second.cos.shape[0] == 16


@torch.no_grad()
def test_given_tables_are_not_made_again(tiny_transformer, monkeypatch):
    x, t, states, mask, pooled, guidance = inputs(TINY, [3])
    condition, rope = tiny_transformer.condition(states, mask, pooled, guidance), tiny_transformer.rope(x.shape, CPU)
    expected = tiny_transformer(x, t, condition)
    monkeypatch.setattr(HunyuanVideoTransformer, "rope", lambda *_: pytest.fail("they were made"))
    assert torch.equal(tiny_transformer(x, t, condition, rope=rope), expected)


@torch.no_grad()
def test_every_block_may_be_called_in_another_way(tiny_transformer):
    x, t, states, mask, pooled, guidance = inputs(TINY, [3])
    condition, called = tiny_transformer.condition(states, mask, pooled, guidance), []
    expected = tiny_transformer(x, t, condition)
    tiny_transformer.trunk = partial(trunk, call=lambda block, *inputs: called.append(block) or block(*inputs))
    assert torch.equal(tiny_transformer(x, t, condition), expected) and called == tiny_transformer.blocks
