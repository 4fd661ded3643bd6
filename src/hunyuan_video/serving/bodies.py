"""Request bodies as values, whether they came as JSON or as a form: a form's strings become numbers, its `loras[0][name]` becomes a list of
objects, its files become bytes. Imports no torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from hunyuan_video.serving.errors import ApiError, unknown

MAX_FIELDS = 200
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){0,4})")
_TAGS = ("str", "float", "bytes", "VideoReference")  # by which pydantic tells the members of a union
M = TypeVar("M", bound=BaseModel)
_WANTED = {
    "int": "a whole number", "float": "a number", "string": "text", "bool": "true or false", "list": "a list", "model": "an object",
    "finite": "a finite number", "dict": "an object", "string_unicode": "text without halves of characters",
}  # fmt: skip


async def read_body(request: Request, model: type[M]) -> M:
    """What came, checked.

    Raises:
        ApiError: 400 with a sentence that names the field; 413 for too much; 415 for what is neither JSON nor a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        content: bytes | list[tuple[str, Any]] = await request.body()
    elif kind == "multipart/form-data":
        content = await _form(request)
    else:
        raise ApiError(415, f"The body is {kind[:100] or 'of no type'}; it must be application/json or multipart/form-data.")
    return await run_in_threadpool(_checked, content, model)  # for a picture in a body takes a while


def _checked(content: bytes | list[tuple[str, Any]], model: type[M]) -> M:
    values = _json(content) if isinstance(content, bytes) else nested(content)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        _refuse(error, model)


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is no JSON ({str(error)[:200]}).", code="invalid_json") from error
    if not isinstance(values, dict):
        raise ApiError(400, f"The body is a JSON {type(values).__name__}; it must be an object.", code="invalid_json")
    return values


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


async def _form(request: Request) -> list[tuple[str, Any]]:
    async with request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=request.app.state.rules.max_body) as form:
        return [(name, await value.read() if isinstance(value, UploadFile) else value) for name, value in form.multi_items()]


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by names such as `size`, `loras[0][name]` or `loras[][name]`, in which a name that comes again begins the next.

    Raises an ApiError for a name that is none, or a value that comes twice.
    """
    tree: dict[str, Any] = {}
    for name, value in pairs:
        match = _KEY.fullmatch(name)
        if match is None:
            raise ApiError(400, f"{name[:100]!r} is no name of a field.", param=name[:100])
        place, path = tree, [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        for number, step in enumerate(path[:-1]):
            step = step or _newest(place, path[number + 1 :])
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise ApiError(400, f"{name} comes beside {match[1]}; give one of them.", param=match[1])
        last = path[-1] or str(len(place))
        if last in place:
            raise ApiError(400, f"{name} comes twice; give it once.", param=match[1])
        place[last] = value
    return {name: _lists(value) for name, value in tree.items()}


def _newest(items: dict[str, Any], rest: list[str]) -> str:
    """Which item of `name[][…]` is meant: the last one, unless it has this already."""
    place: Any = items.get(str(len(items) - 1))
    for step in rest:
        if not isinstance(place, dict) or step not in place:
            break
        place = place[step]
    else:
        return str(len(items))
    return str(max(0, len(items) - 1))


def _lists(value: Any) -> Any:
    """Objects whose names are numbers are lists."""
    if not isinstance(value, dict):
        return value
    if all(name.isascii() and name.isdigit() and len(name) < 4 for name in value):
        return [_lists(value[name]) for name in sorted(value, key=int)]
    return {name: _lists(inner) for name, inner in value.items()}


def _refuse(error: ValidationError, model: type[BaseModel]) -> NoReturn:
    """One sentence about the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part not in _TAGS) or "A name"
    kind, given = first["type"], first.get("input")
    field = str(first["loc"][0]) if first["loc"] else None
    if kind == "extra_forbidden":
        raise unknown("field", where, model.model_fields)
    if kind == "missing":
        raise ApiError(400, f"{where} is missing; give it.", param=field, code="missing_required_parameter")
    if kind == "value_error":  # one of our own sentences
        raise ApiError(400, str(first.get("ctx", {}).get("error", first["msg"])), param=field)
    if kind == "string_pattern_mismatch" and field is not None:
        said = f"it must be {model.model_fields[field].description}"
    elif kind in ("string_too_long", "string_too_short"):
        limits = first.get("ctx", {})
        said = f"it has {len(given)} characters; the limit is {limits['max_length']}" if "max_length" in limits else "it must not be empty"
    elif kind in ("literal_error", "too_long"):
        said = first["msg"][0].lower() + first["msg"][1:]
    else:
        said = f"it must be {_WANTED.get(kind) or _WANTED.get(kind.split('_')[0], first['msg'])}"
    shown = f"{len(given)} bytes" if isinstance(given, bytes) else _short(given)
    raise ApiError(400, f"{where} is {shown}; {said}.", param=field)


def _short(value: object) -> str:
    """As much of a value as a sentence bears; a number may have a million digits."""
    if (isinstance(value, int) and abs(value) > 10**100) or (isinstance(value, float) and not math.isfinite(value)):
        return "no number that can be meant"
    said = repr(value)
    return said if len(said) <= 100 else f"{said[:100]}…"
