"""Our description of the API against the API: schemathesis sends what it says may be sent, and what it says may not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance
from served import ANN, Served

from hunyuan_video.serving.routes import house, router

CALM = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
NOTHING_TO_GET_WRONG = [("/health", GenerationMode.NEGATIVE), ("/ready", GenerationMode.NEGATIVE)]
# What is right in form and refused all the same: more than the limits, a picture or video that is none, what nothing here can do.
REFUSED = ("/v1/videos", "/v1/videos/edits", "/v1/videos/characters", "/v1/videos/extensions")
OPERATIONS = [
    (method, route.path)
    for route in (*router.routes, *house.routes)
    if route.include_in_schema  # pyright: ignore
    for method in sorted(route.methods)  # pyright: ignore
]
BOTH = [(*operation, mode) for operation in OPERATIONS for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
CASES = [case for case in BOTH if case[1:] not in NOTHING_TO_GET_WRONG]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    served = Served(tmp_path_factory.mktemp("served"), max_queue=10**6)
    served.store.lease = 10**6
    served.store.claim("w")  # for /ready, for as long
    yield schemathesis.openapi.from_asgi("/openapi.json", served.app)
    served.close()


def check(described: BaseSchema, method: str, path: str, mode: GenerationMode, examples: int) -> None:
    """All of schemathesis' checks, of answers to requests that are as described, or are not."""
    name = path.replace(":path", "")
    left_out = [positive_data_acceptance] if method == "POST" and path in REFUSED else []
    cases = described[name][method].as_strategy(generation_mode=mode)

    @given(case=cases)
    @settings(max_examples=examples, deadline=None, suppress_health_check=CALM, phases=[Phase.generate], derandomize=True, database=None)
    def one(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {ANN}"}, excluded_checks=left_out)

    one()


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_answers_are_as_described(method: str, path: str, mode: GenerationMode, described: BaseSchema) -> None:
    check(described, method, path, mode, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_answers_are_as_described_whatever_comes(method: str, path: str, mode: GenerationMode, described: BaseSchema) -> None:
    check(described, method, path, mode, 50)
