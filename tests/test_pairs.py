"""Every two transforms together are what both say of the weights, in forward and where there is a training in backward passes; or they are
refused at the start, with the reason. Of the pairs that ranks compute, each transform is in one by default; `-m slow` has the others."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable
from itertools import combinations
from types import FunctionType, ModuleType

import pytest
from pairs import CHANGE_VALUES, ELSEWHERE, HOME, NATIVE, TRANSFORMS, Asked, by_hand, deviations, result, together, work
from spawn import on_ranks

from hunyuan_video import assembly, transforms
from hunyuan_video.distributed.world import World
from hunyuan_video.kernels.choice import kernel_of
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.offload import to_device

# Everything is float32. What is added in another order differs by some roundings of 2^-24 in each layer.
BOUND = 2e-5
# Products of 8-bit numbers are rounded to bfloat16: one that falls to the other side is 2^-8 off, in one of many numbers that are added.
BOUND_OF_PRODUCTS = 2.0**-8

PAIRS = [
    frozenset(pair)
    for pair in combinations(TRANSFORMS, 2)
    if not TRANSFORMS[pair[0]].runtime.keys() & TRANSFORMS[pair[1]].runtime.keys()  # two values of one setting
]
ALONE = [name for name, transform in TRANSFORMS.items() if transform.ranks == 1]
TRAINED = frozenset({"FP8", "LoRA trained", "activation checkpointing", "FSDP"})  # what a 13B needs on small GPUs
TRAINED_ON_ONE = TRAINED - {"FSDP"} | {"offload blocks"}


def refusal(asked: Asked) -> str | None:
    """Why they cannot go together, in the words of `check`."""
    patches = any(name.startswith("PipeFusion") for name in asked.names)
    if patches and "offload blocks" in asked.names:
        return "patches need every block again and again"
    if patches and "first-block cache" in asked.names:
        return "pipefusion_patches need the last step's keys"
    runtime = asked.runtime
    if runtime.attention not in ("auto", "matmul", "sdpa") and asked.trains:
        return "for inference, but trainings need its gradient"
    if runtime.block_ops != "auto" and asked.trains:
        return "trainings need every value of a block"
    if runtime.attention == NATIVE != "sdpa" and runtime.attention_density < 1:
        return "blocks are of 4 queries and 4 keys; they are of 64 or 128"  # as tiny clips have them
    if runtime.fp8_matmul and asked.trains:
        return "fp8_matmul rounds activations"
    if runtime.fp8_matmul and asked.in_file:
        return "needs a GPU that multiplies 8-bit numbers"
    if runtime.offload == "models" and asked.trains:
        return "a training works all the time"
    if runtime.offload == "blocks" and asked.trains and not asked.recomputes:
        return "activations that are kept would keep the blocks' weights"
    if runtime.offload == "blocks" and asked.trains and asked.ranks > 1:
        return "in a training none has whole blocks"
    if runtime.step_cache != "off" and asked.trains:
        return "for inference: a training has no steps"
    if runtime.step_cache != "off" and runtime.shard:  # here each rank has all tokens, as halves for two branches of guidance have
        return "leaves out other steps, and would wait for ever"
    if asked.in_file and (asked.trains or asked.ranks > 1):
        return "for inference in one process"
    if runtime.shard and runtime.offload != "none":
        return "with shard no GPU has whole weights"
    if asked.in_file and runtime.offload == "blocks":
        return "would copy weights into memory that are used in their file"
    if patches and asked.trains:
        return "pipefusion_patches are for inference"
    if runtime.attention_density < 1 and asked.trains:
        return "attention_density is for inference"
    if runtime.attention_density < 1 and patches:
        return "with pipefusion_patches no kernel sees all of a head's tokens"
    if patches and "sequence parallel" in asked.names:
        return "pipefusion_patches need every token's keys on one rank"
    if patches and runtime.shard:
        return "shard would gather every block for every patch"
    return None


ON_RANKS = [pair for pair in PAIRS if Asked(pair).ranks > 1]
COMPUTED_BY_RANKS = [pair for pair in ON_RANKS if refusal(Asked(pair)) is None]
Found = list[dict[str, dict[str, float] | str]]


def once_each() -> set[frozenset[str]]:
    """Of what ranks compute one pair with each transform, and with one way of sharing after the other; of those that act on the same
    model, for others meet in `assemble` alone."""
    meet = [pair for pair in COMPUTED_BY_RANKS if Asked(pair).meet]
    found = [[pair for pair in meet if name in pair] for name in TRANSFORMS]
    return {pairs[number % len(pairs)] for number, pairs in enumerate(found) if pairs}


ONCE_EACH = once_each()
LATER = [pair for pair in COMPUTED_BY_RANKS if pair not in ONCE_EACH]  # tested when asked for


@pytest.fixture(scope="module")
def found_by_ranks(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two ranks found of the pairs that need them, run once."""
    return on_ranks(work, 2, tmp_path_factory.mktemp("ranks"), [*(pair for pair in ON_RANKS if pair not in LATER), TRAINED], patience=900)


@pytest.fixture(scope="module")
def found_later(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return on_ranks(work, 2, tmp_path_factory.mktemp("later"), LATER, patience=900)


@pytest.fixture
def check_multiplies(monkeypatch):
    """As if this were a GPU, where no weight stays in its file."""
    original = fp8.check_multiplies
    monkeypatch.setattr(fp8, "check_multiplies", lambda device: original(device) if device == HOME else None)


def places(name: str) -> list[tuple[ModuleType, Callable[..., object]]]:
    """Where `assemble` finds the functions of a transform; those that are called elsewhere have none."""
    functions = TRANSFORMS[name].functions
    return [(place, function) for function in functions for place in (assembly, fp8) if vars(place).get(function.__name__) is function]


def name_of(names: frozenset[str]) -> str:
    return "+".join(sorted(names))


@pytest.mark.parametrize("pair", [pytest.param(pair, marks=[pytest.mark.slow] * (pair in LATER), id=name_of(pair)) for pair in PAIRS])
def test_two_together_are_both_or_refused(pair, request, tmp_path, check_multiplies):
    asked = Asked(pair)
    if asked.ranks > 1:
        results = [found[name_of(pair)] for found in request.getfixturevalue("found_later" if pair in LATER else "found_by_ranks")]
    else:
        results = [result(asked, tmp_path, World(HOME if asked.in_file else ELSEWHERE))]
    expected = refusal(asked)
    for apart in results:
        if expected is not None:
            assert isinstance(apart, str) and expected in apart
        else:
            assert not isinstance(apart, str), apart
            assert max(apart.values()) < (BOUND_OF_PRODUCTS if asked.runtime.fp8_matmul else BOUND), apart
            assert ("gradient of x" in apart) == asked.trains


def test_adapters_beside_sharded_8_bits_get_the_gradient_of_one_process(found_by_ranks):
    for found in found_by_ranks:
        apart = found[name_of(TRAINED)]
        assert not isinstance(apart, str) and max(apart.values()) < BOUND
        assert "gradient of parameters" in apart


@pytest.mark.parametrize("names", [TRAINED_ON_ONE, TRAINED_ON_ONE - {"FP8"}], ids=name_of)
def test_adapters_beside_blocks_that_come_and_go_get_the_gradient_of_those_that_stay(names, tmp_path):
    apart = result(Asked(names), tmp_path, World(ELSEWHERE))
    assert not isinstance(apart, str) and max(apart.values()) < BOUND
    assert "gradient of parameters" in apart


def test_8_bit_weights_travel_as_such_and_are_planned_so(found_by_ranks):
    for found in found_by_ranks:
        travelled = found["travelled"]
        assert travelled["gathered"] == pytest.approx(travelled["planned"], rel=0.01)  # sizes that are no multiples of 2 are padded


@pytest.mark.parametrize("name", ALONE)
def test_each_changes_what_it_says_and_nothing_else(name, tmp_path, check_multiplies):
    asked = Asked(frozenset({name}))
    nothing = by_hand(Asked(frozenset()))
    found = together(asked, tmp_path, World(HOME if asked.in_file else ELSEWHERE))
    largest = max(deviations({kind: found[kind] for kind in nothing}, nothing).values())
    assert largest > 1e-3 if name in CHANGE_VALUES else largest < BOUND


@pytest.mark.parametrize("name", [name for name in ALONE if places(name)])
def test_each_is_done_where_it_is_asked_for(name, tmp_path, check_multiplies, monkeypatch):
    """A transform that changes no value would not be missed otherwise."""
    done, expected = [], places(name)
    for place, function in expected:
        monkeypatch.setattr(place, function.__name__, lambda *given, do=function: done.append(do) or do(*given))
    asked = Asked(frozenset({name}))
    together(asked, tmp_path, World(HOME if asked.in_file else ELSEWHERE))
    assert set(done) == {function for _, function in expected}


def called_in(source: str) -> set[FunctionType]:
    """The functions of other rooms that some lines of `assembly` name."""
    called = set()
    for node in ast.walk(ast.parse(source)):
        value = None
        if isinstance(node, ast.Name):
            value = vars(assembly).get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = getattr(vars(assembly).get(node.value.id), node.attr, None)
        if isinstance(value, FunctionType) and re.match(r"hunyuan_video\.(transforms|distributed|kernels)\.", value.__module__):
            called.add(value)
    return called


def test_every_transform_is_in_the_list():
    """Those that `assemble` calls, and at least one of each module of them."""
    listed = {function for transform in TRANSFORMS.values() for function in transform.functions}
    assert called_in(inspect.getsource(assembly.assemble)) - {fp8.in_layers, to_device, kernel_of} <= listed
    modules = {f"{transforms.__name__}.{module.name}" for module in pkgutil.iter_modules(transforms.__path__)}
    assert modules - {"hunyuan_video.transforms.swap"} <= {function.__module__ for function in listed}


def test_every_transform_that_assembly_knows_is_called_there():
    listed = {function for transform in TRANSFORMS.values() for function in transform.functions}
    known = {function for function in listed if any(vars(place).get(function.__name__) is function for place in (assembly, fp8))}
    assert known <= called_in(inspect.getsource(assembly))
