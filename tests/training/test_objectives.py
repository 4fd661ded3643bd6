"""What a step asks of the model: noise levels, given frames, guidance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import TINY, randomize

from hunyuan_video.models.text import TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.sampling import shifted_sigmas
from hunyuan_video.training.objectives import (
    Objective,
    add_noise,
    draw_dropped,
    draw_sigma,
    given_frames,
    guided_velocity,
    loss_of,
    shift_for,
    student_of,
    velocity,
)
from hunyuan_video.training.run import random_generator


def drawn(*keys: int | str) -> torch.Generator:
    return random_generator(0, *keys)


def features(seed: int = 0) -> TextFeatures:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    return TextFeatures(torch.randn(2, 5, 24, generator=draw), mask, torch.randn(2, 20, generator=draw))


def latents(num_frames: int = 3) -> torch.Tensor:
    return torch.randn(2, 4, num_frames, 4, 4, generator=torch.Generator().manual_seed(1))


def noisy_batch(config: Objective, num_frames: int = 3):
    return add_noise(config, latents(num_frames), features(), drawn("batch"))


@pytest.fixture
def teacher() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(replace(TINY, guidance_embed=False)))


def test_the_model_sees_data_and_noise_mixed_and_learns_their_difference():
    noisy, target = noisy_batch(Objective())
    noise = target + latents()
    level = noisy.sigma.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(noisy.x, (1 - level) * latents() + level * noise)


def test_the_shift_of_training_is_the_shift_of_sampling():
    plain = draw_sigma(Objective(), 1000, 8, drawn("sigma"))
    shifted = draw_sigma(Objective(shift=3.0), 1000, 8, drawn("sigma"))
    order = plain.argsort()
    torch.testing.assert_close(shifted[order], 3 * plain[order] / (1 + 2 * plain[order]))
    middle = shifted_sigmas(2, 3.0)[1].item()  # where sampling takes 0.5 to
    assert abs(shifted.median().item() - middle) < 0.03


def test_four_times_the_tokens_have_twice_the_shift():
    config = Objective(shift=3.0, shift_tokens=100)
    assert shift_for(config, 100) == 3.0 and shift_for(config, 400) == 6.0
    assert shift_for(Objective(shift=3.0), 400) == 3.0


def test_a_video_whose_first_frame_is_given_shows_it_clean():
    noisy, _ = noisy_batch(Objective(image_to_video=1.0))
    assert noisy.clean_frames == (0,)
    assert torch.equal(noisy.x[:, :, 0], latents()[:, :, 0]) and not torch.equal(noisy.x[:, :, 1], latents()[:, :, 1])


def test_a_given_frame_does_not_count(teacher):
    noisy, target = noisy_batch(Objective(image_to_video=1.0))
    before = loss_of(teacher, noisy, target)
    target[:, :, 0] += 100
    assert torch.equal(loss_of(teacher, noisy, target), before)


def test_the_model_knows_that_a_frame_is_given(teacher):
    noisy, target = noisy_batch(Objective(image_to_video=1.0))
    assert not torch.equal(loss_of(teacher, noisy, target), loss_of(teacher, noisy._replace(clean_frames=()), target))


def test_an_image_is_never_given():
    assert noisy_batch(Objective(image_to_video=1.0), num_frames=1)[0].clean_frames == ()


def test_the_share_of_image_to_video_is_kept():
    config = Objective(image_to_video=0.3)
    draws = [add_noise(config, latents(2), features(), drawn("batch", step))[0].clean_frames for step in range(400)]
    assert 0.23 < draws.count((0,)) / 400 < 0.37


def test_each_kind_of_beginning_has_its_share():
    config = Objective(image_to_video=0.2, first_and_last=0.3, continuation=0.4)
    draws = [given_frames(config, 5, number / 1000) for number in range(1000)]
    shares = {kind: draws.count(kind) for kind in set(draws)}
    assert shares.pop((0, 1, 2)) + shares.pop((0, 1)) + shares.pop((0, 1, 2, 3)) == pytest.approx(400, abs=2)
    assert shares == pytest.approx({(0,): 200, (0, 4): 300, (): 100}, abs=2)


def test_of_each_number_a_continuation_begins_as_often():
    draws = [given_frames(Objective(continuation=1.0), 9, number / 700) for number in range(700)]
    assert {len(draw): draws.count(draw) for draw in set(draws)} == dict.fromkeys(range(2, 9), 100)


@pytest.mark.parametrize("num_frames", [1, 2])
def test_a_video_is_never_given_whole(num_frames):
    config = Objective(image_to_video=0.4, first_and_last=0.3, continuation=0.3)
    assert {given_frames(config, num_frames, number / 100) for number in range(100)} <= {(), (0,)[: num_frames - 1]}


def test_last_frames_and_beginnings_are_clean_and_do_not_count(teacher):
    for config, clean in ((Objective(first_and_last=1.0), [0, 2]), (Objective(continuation=1.0), [0, 1])):
        noisy, target = noisy_batch(config, num_frames=3)
        assert noisy.clean_frames == tuple(clean)
        assert torch.equal(noisy.x[:, :, clean], latents(num_frames=3)[:, :, clean])
        before = loss_of(teacher, noisy, target)
        target[:, :, clean] += 100
        assert torch.equal(loss_of(teacher, noisy, target), before)


def test_the_share_of_dropped_captions_is_kept():
    draw = drawn("drop")
    assert 0.07 < sum(draw_dropped(Objective(caption_dropout=0.1), draw) for _ in range(2000)) / 2000 < 0.13


@pytest.mark.parametrize(("scale", "caption"), [(1.0, features(0)), (0.0, features(7))])
def test_guidance_of_1_is_the_caption_and_of_0_the_empty_one(teacher, scale, caption):
    noisy, _ = noisy_batch(Objective(guidance=scale))
    guided = guided_velocity(teacher, noisy, features(7))
    with torch.no_grad():
        torch.testing.assert_close(guided, velocity(teacher, noisy._replace(features=caption)), atol=1e-5, rtol=1e-5)


def test_a_student_starts_as_its_teacher_and_can_learn_guidance(teacher):
    student = student_of(teacher, seed=0)
    assert student.guidance_in is not None
    # Part by part, for the same weights elsewhere in memory may multiply to other last bits.
    assert not student.guidance_in(torch.tensor([4000.0]), torch.float32).any()
    weights = student.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in teacher.state_dict().items())
    loss_of(student, *noisy_batch(Objective(guidance=4.0))).backward()
    gradient = student.guidance_in.get_parameter("mlp.2.weight").grad
    assert gradient is not None and gradient.abs().max() > 0


def test_a_student_has_weights_of_its_own(teacher):
    before = teacher.img_in.proj.weight.clone()
    with torch.no_grad():
        student_of(teacher, seed=0).img_in.proj.weight.zero_()
    assert torch.equal(teacher.img_in.proj.weight, before)


def test_weights_with_guidance_are_not_distilled_again(tiny_transformer):
    with pytest.raises(ValueError, match="have it already"):
        student_of(tiny_transformer, seed=0)


def test_a_model_with_guidance_is_told_the_constant_times_1000(tiny_transformer):
    noisy, _ = noisy_batch(Objective(guidance=6.0))
    told: list[torch.Tensor] = []
    assert tiny_transformer.guidance_in is not None
    tiny_transformer.guidance_in.register_forward_pre_hook(lambda _module, inputs: told.append(inputs[0]))
    velocity(tiny_transformer, noisy)
    assert told[0].tolist() == [6000.0, 6000.0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shift": 0.0}, "shift is 0.0"),
        ({"shift_tokens": 0}, "shift_tokens is 0"),
        ({"image_to_video": 1.5}, "image_to_video is 1.5"),
        ({"first_and_last": -0.1}, "first_and_last is -0.1"),
        ({"image_to_video": 0.5, "first_and_last": 0.3, "continuation": 0.3}, "continuation are 1.1 together"),
        ({"caption_dropout": 1.0}, "caption_dropout is 1.0"),
    ],
)
def test_impossible_objectives_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Objective(**change)
