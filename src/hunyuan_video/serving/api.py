"""The OpenAI videos API in front of a store: `create_app` puts it together. Imports no torch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from hunyuan_video.serving import schema
from hunyuan_video.serving.errors import handle_errors
from hunyuan_video.serving.metrics import registry_of
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.routes import Service, house, router
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.security import Guard
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.upkeep import Upkeep
from hunyuan_video.serving.webhooks import deliver_all

log = logging.getLogger(__name__)

_TIDY = 10.0  # seconds between two looks at what is to be tidied up
_BODIES = (schema.Create, schema.Remix, schema.Extend, schema.Edit, schema.Character)
_FILE = {"type": "string", "format": "binary"}


def create_app(store: Store, results: Results, rules: Rules) -> FastAPI:
    """The API of what `store` and `results` keep, by these rules. While it runs it also sends webhooks and keeps the house."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_keep_house(store, results))]
        if rules.webhook_hosts:
            tasks.append(asyncio.create_task(deliver_all(store, rules)))
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # No pages of its own, which would fetch scripts from elsewhere; and no redirects, which would repeat a Host header.
    app = FastAPI(title="HunyuanVideo", docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False)
    app.state.service, app.state.rules = Service(store, results, rules, registry_of(store)), rules
    handle_errors(app, [*router.routes, *house.routes])
    app.include_router(router)
    app.include_router(house)
    app.add_middleware(Guard, max_body=rules.max_body, is_open=not rules.keys)
    app.openapi = lambda: _openapi(app)
    return app


async def _keep_house(store: Store, results: Results) -> None:
    """As workers do: also while none is alive, a dead one's job is given back, and what expires is forgotten."""
    upkeep = Upkeep(store, results)
    while True:
        try:
            await run_in_threadpool(upkeep.do)
        except Exception:  # this task's outermost boundary: nobody would hear of its end, and next time it may go well
            log.exception("The house could not be kept.")
        await asyncio.sleep(_TIDY)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """With the bodies that the paths read themselves, and without FastAPI's own 422, which here is a 400."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            operation["responses"].pop("422", None)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for model in _BODIES:
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= described.pop("$defs", {}) | {model.__name__: described, f"{model.__name__}Form": _as_form(described)}
        app.openapi_schema = document
    return app.openapi_schema


def _as_form(described: dict[str, Any]) -> dict[str, Any]:
    """The same body as a form: pictures and videos are files, and lists are fields such as loras[0][name]."""
    fields = {name: value for name, value in described["properties"].items() if name != "loras"}
    for name in {"input_reference", "video"} & fields.keys():
        fields[name] = _FILE
    if "loras" in described["properties"]:
        fields |= {"loras[0][name]": {"type": "string"}, "loras[0][strengths]": {"type": "string"}}
    return described | {"properties": fields, "additionalProperties": False}
