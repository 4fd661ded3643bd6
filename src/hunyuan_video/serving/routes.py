"""The paths of the API: who asks is known, what is asked for is checked, and the store does it. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from hunyuan_video.config import RewriteMode, Sampling
from hunyuan_video.serving import schema
from hunyuan_video.serving.bodies import read_body
from hunyuan_video.serving.content import send_content
from hunyuan_video.serving.errors import ApiError, ErrorBody, refused, unknown
from hunyuan_video.serving.events import follow, last_seen
from hunyuan_video.serving.jobs import Job, KeyReusedError, check_id
from hunyuan_video.serving.metrics import text_of
from hunyuan_video.serving.orders import Asked, given_of, lora_files, place
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.security import owner_of, refuse_pages
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.strangers import frames_at, last_frame

MAX_FOLLOWERS = 100  # streams of one owner: each looks into the database twice a second
POLL_AFTER = 1000  # milliseconds after which to ask again how far a video is
# By the beginning of our sentences, which field they are about.
_FIELDS = {
    **{name: name for name in (*schema.Create.model_fields, "video")},
    "The prompt": "prompt",
    "The negative prompt": "negative_prompt",
    "image": "input_reference",
    "The clip": "input_reference",
    "A keyframe": "keyframes",
    "Two keyframes": "keyframes",
    "A linear-quadratic schedule": "num_steps",
    "Idempotency-Key": "Idempotency-Key",
    "seconds and num_frames": "seconds",
    "size and width": "size",
}


@dataclass(frozen=True)
class Service:
    """What every path works with."""

    store: Store
    results: Results
    rules: Rules
    registry: CollectorRegistry
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    followers: Counter[str] = field(default_factory=Counter)
    """how many streams each owner follows"""
    rewriting: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(8))

    def job(self, job_id: str, owner: str) -> Job:
        """Raises an ApiError, 404, if there is none, or it is another's."""
        job = self.store.get(job_id, owner) if check_id(job_id) else None
        if job is None:
            raise no_such_video()
        return job

    def finished(self, job_id: str, owner: str) -> Job:
        """Raises an ApiError if there is none, or no video of it."""
        job = self.job(job_id, owner)
        if job.status != "completed":
            raise ApiError(409, f"The video is {job.status}; only a completed one can be gone on with.", code="not_ready")
        return job

    def place(self, owner: str, key: str | None, asked: Callable[[], Asked]) -> schema.Video:
        """Raises what `place` does; of what cannot be, an ApiError that names the field."""
        try:
            job = place(self.store, self.results, self.rules, owner, asked(), idempotency_key=key)
        except KeyReusedError:
            raise
        except ValueError as error:
            raise refused(error, _FIELDS) from error
        return schema.video_of(job, self.rules.fps)

    async def order(
        self, owner: str, request: Request, asked: Callable[[], Asked], *, media: bool, rewrite: RewriteMode | Literal["off"] | None = None
    ) -> schema.Video:
        """`place`, in a thread; where a prompt is rewritten, which may take minutes, or pictures and videos are decoded, in one of few, so
        that who only asks for something need not wait."""
        work = partial(self.place, owner, request.headers.get("idempotency-key"), asked)
        rewrites = (rewrite or self.rules.rewrite or "off") != "off"
        limiter = self.rewriting if rewrites else self.decoding if media else None
        return await to_thread.run_sync(work, limiter=limiter)


class Followed(StreamingResponse):
    """A stream of events, between `begin` and `end`, however that comes about."""

    def __init__(self, stream: AsyncIterator[str], begin: Callable[[], None], end: Callable[[], None]):
        super().__init__(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._begin, self._end = begin, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._begin()
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def no_such_video() -> ApiError:
    return ApiError(404, "There is no such video of yours; /v1/videos lists those there are.", param="video_id", code="video_not_found")


async def service_of(request: Request) -> Service:
    return request.app.state.service


async def owner(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))]) -> str:
    keys = request.app.state.service.rules.keys
    if not keys and request.method not in ("GET", "HEAD"):
        refuse_pages(request.headers)
    return owner_of(keys, request.headers.get("authorization"))


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in (*statuses, 421, 500, 503)}


def body(model: type[Any], *, json_too: bool = True) -> dict[str, Any]:
    """How a body is described that a path reads itself."""
    content = {"multipart/form-data": {"schema": {"$ref": f"#/components/schemas/{model.__name__}Form"}}}
    if json_too:
        content["application/json"] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    return {"requestBody": {"required": True, "content": content}}


Svc = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner)]


async def known_query(request: Request, _: Owner) -> None:
    """Refuse a parameter that the path does not know: a misspelt one would be passed over else."""
    known = {param.alias for param in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise unknown("parameter", name, known)


Variant = Literal["video", "thumbnail", "spritesheet", "preview"]
POSTED = errors(400, 401, 403, 408, 409, 413, 415, 429)
KEY_HEADER = {
    "parameters": [
        {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "minLength": 1, "maxLength": 255}}
    ]
}
router = APIRouter(prefix="/v1", dependencies=[Depends(known_query)])


@router.post("/videos", responses=POSTED, openapi_extra=body(schema.Create) | KEY_HEADER)
async def create_video(request: Request, svc: Svc, owner: Owner) -> schema.Video:
    """Order a video."""
    given = await read_body(request, schema.Create)
    asked = partial(given.asked, svc.rules.fps)
    return await svc.order(owner, request, asked, media=given.input_reference is not None, rewrite=given.rewrite)


@router.get("/videos", responses=errors(400, 401, 404))
def list_videos(
    svc: Svc,
    owner: Owner,
    after: Annotated[str | None, Query(description="id of the last video of the page before")] = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> schema.VideoList:
    """Your videos, by the time they were ordered."""
    try:
        jobs, more = svc.store.list(owner, after=after, limit=limit, order=order)
    except LookupError as error:
        raise ApiError(404, str(error.args[0]), param="after", code="video_not_found") from error
    data = [schema.video_of(job, svc.rules.fps) for job in jobs]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return schema.VideoList(data=data, first_id=first, last_id=last, has_more=more)


@router.post("/videos/edits", responses=POSTED | errors(404), openapi_extra=body(schema.Edit) | KEY_HEADER)
async def edit_video(request: Request, svc: Svc, owner: Owner) -> schema.Video:
    """Order a video that is made of another one, by a prompt."""
    given = await read_body(request, schema.Edit)
    return await svc.order(owner, request, partial(_edit, svc, owner, given), media=True)


def _edit(svc: Service, owner: str, given: schema.Edit) -> Asked:
    """Of a video of ours, like it; of another one, as the weights were made for."""
    if isinstance(given.video, bytes):
        return Asked(given.prompt, Sampling(strength=given.strength), video=given.video)
    source, content = _finished(svc, owner, given.video.id)
    order = source.order
    like: dict[str, Any] = asdict(order.sampling) | {"seed": None, "num_frames": None, "strength": given.strength, "loop": False}
    return Asked(given.prompt, Sampling(**like), order.negative_prompt, loras=order.loras, video=content, remixed_from=source.id)


@router.post("/videos/extensions", responses=POSTED | errors(404), openapi_extra=body(schema.Extend) | KEY_HEADER)
async def extend_video(request: Request, svc: Svc, owner: Owner) -> schema.Video:
    """Order a video that begins with the last frame of another one, or with as many as the weights go on from."""
    given = await read_body(request, schema.Extend)
    return await svc.order(owner, request, partial(_extension, svc, owner, given), media=True)


def _extension(svc: Service, owner: str, given: schema.Extend) -> Asked:
    """Of a video of ours, like it; of another one, as the weights were made for."""
    frames, defaults = None if given.seconds is None else schema.frames_of(given.seconds, svc.rules.fps), svc.rules.defaults
    if isinstance(given.video, bytes):
        size = defaults.height, defaults.width
        return replace(_end(svc, given.video, size), prompt=given.prompt, sampling=Sampling(num_frames=frames))
    source, content = _finished(svc, owner, given.video.id)
    order = source.order
    like: dict[str, Any] = asdict(order.sampling) | {"seed": None, "num_frames": frames or order.sampling.num_frames}
    like |= {"strength": None, "loop": False}
    return replace(
        _end(svc, content, (order.sampling.height, order.sampling.width)),
        prompt=given.prompt,
        sampling=Sampling(**like),
        negative_prompt=order.negative_prompt,
        loras=order.loras,
        remixed_from=source.id,
    )


def _end(svc: Service, content: bytes, size: tuple[int, int]) -> Asked:
    """A video that begins with the end of another one, in the way that the weights know."""
    if svc.rules.overlap == 1:
        return Asked("", image=last_frame(content, svc.rules.max_picture_pixels))
    return Asked("", lead=frames_at(content, svc.rules.max_picture_pixels, "last", svc.rules.overlap, size))


def _finished(svc: Service, owner: str, job_id: str) -> tuple[Job, bytes]:
    """A completed job and its video's file."""
    source = svc.finished(job_id, owner)
    try:
        with svc.results.open(source.files["video"]) as file:
            return source, file.read()
    except FileNotFoundError as error:  # deleted meanwhile
        raise no_such_video() from error


@router.post("/videos/characters", responses=POSTED, openapi_extra=body(schema.Character, json_too=False), response_model=schema.Video)
async def create_character(_: Owner) -> None:
    """Refused: there are no characters here."""
    raise ApiError(400, "There are no characters here; train a LoRA of one, and ask for it by its name.", code="not_supported")


@router.get("/videos/characters/{character_id}", responses=errors(401, 404), response_model=schema.Video)
def get_character(character_id: str, _: Owner) -> None:
    """There are none."""
    raise ApiError(404, "There are no characters here; train a LoRA of one, and ask for it by its name.", param="character_id")


@router.get("/videos/{video_id}", responses=errors(401, 404))
def get_video(video_id: str, svc: Svc, owner: Owner, response: Response) -> schema.Video:
    """How far it is."""
    job = svc.job(video_id, owner)
    if not job.is_over:
        response.headers["openai-poll-after-ms"] = str(POLL_AFTER)
    return schema.video_of(job, svc.rules.fps)


@router.delete("/videos/{video_id}", responses=errors(401, 403, 404))
def delete_video(video_id: str, svc: Svc, owner: Owner) -> schema.Deleted:
    """Forget it and its files, also while it is made."""
    if not (check_id(video_id) and svc.store.delete(video_id, owner)):
        raise no_such_video()
    return schema.Deleted(id=video_id)


_EVENT_ID = {"type": "string", "pattern": "^[0-9]{0,18}$"}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"content": dict.fromkeys(("video/mp4", "image/webp"), _FILE)}


@router.head("/videos/{video_id}/content", include_in_schema=False)
@router.get(
    "/videos/{video_id}/content",
    response_class=Response,
    responses={200: _FILES, 206: _FILES, 304: {"description": "You have it."}} | errors(400, 401, 404, 409, 416),
)
def get_content(video_id: str, request: Request, svc: Svc, owner: Owner, variant: Variant = "video") -> Response:
    """The video, a picture of it, a sheet of pictures; or while it is made a preview."""
    return send_content(request, svc.job(video_id, owner), variant, svc.results)


@router.post("/videos/{video_id}/remix", responses=POSTED | errors(404), openapi_extra=body(schema.Remix) | KEY_HEADER)
async def remix_video(video_id: str, request: Request, svc: Svc, owner: Owner) -> schema.Video:
    """Order the same video by another prompt: with its seed, settings, LoRAs, pictures and clip."""
    given = await read_body(request, schema.Remix)
    source = await run_in_threadpool(svc.finished, video_id, owner)

    def asked() -> Asked:
        return replace(given_of(source.order, svc.results), prompt=given.prompt, remixed_from=source.id)

    return await svc.order(owner, request, asked, media=bool(source.order.media))


@router.post("/videos/{video_id}/cancel", responses=errors(401, 403, 404))
def cancel_video(video_id: str, svc: Svc, owner: Owner) -> schema.Video:
    """End it, at once or after the running step; it is then `failed` with the code `cancelled`. One that is over stays as it is."""
    job = svc.store.cancel(video_id, owner) if check_id(video_id) else None
    if job is None:
        raise no_such_video()
    return schema.video_of(job, svc.rules.fps)


@router.get(
    "/videos/{video_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}} | errors(400, 401, 404, 429),
    openapi_extra={"parameters": [{"name": "Last-Event-ID", "in": "header", "required": False, "schema": _EVENT_ID}]},
)
async def follow_video(video_id: str, request: Request, svc: Svc, owner: Owner) -> StreamingResponse:
    """What happens to it, as it happens (server-sent events), from after Last-Event-ID on."""
    after = last_seen(request.headers.get("last-event-id"))
    job = await run_in_threadpool(svc.job, video_id, owner)
    if svc.followers[owner] >= MAX_FOLLOWERS:
        said = f"You follow {MAX_FOLLOWERS} videos already, which is the limit; end one, or ask for the video now and then."
        raise ApiError(429, said, code="too_many_followers")
    stream = follow(svc.store, svc.results, job, after, svc.rules.fps)
    return Followed(stream, partial(svc.followers.update, [owner]), partial(svc.followers.subtract, [owner]))


@router.get("/models", responses=errors(401))
def list_models(svc: Svc, _: Owner) -> schema.ModelList:
    """The weights that are here, what they were made for, what may be asked for at most, and the LoRAs."""
    return schema.ModelList(data=[_model(svc.rules)])


@router.get("/models/{model_id:path}", responses=errors(401, 404))
def get_model(model_id: str, svc: Svc, _: Owner) -> schema.Model:
    if model_id != svc.rules.model:
        raise ApiError(404, f"There is no such model; {svc.rules.model!r} is here.", param="model_id", code="model_not_found")
    return _model(svc.rules)


def _model(rules: Rules) -> schema.Model:
    return schema.Model(
        id=rules.model,
        image_to_video=rules.image_to_video,
        defaults={name: value for name, value in asdict(rules.defaults).items() if name != "seed"},
        limits=asdict(rules.limits),
        loras=list(lora_files(rules.loras)),
    )


house = APIRouter()


@house.get("/health")
async def health() -> schema.Health:
    """Whether this process is alive."""
    return schema.Health(status="ok")


@house.get("/ready", responses=errors())
def ready(svc: Svc) -> schema.Health:
    """Whether a worker has been heard of, so that videos are made."""
    if not svc.store.live_workers():
        raise ApiError(503, "No worker has been heard of; jobs are taken and wait for one.", code="no_worker")
    return schema.Health(status="ok")


@house.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}} | errors(401))
def metrics(svc: Svc, _: Owner) -> Response:
    """For Prometheus."""
    return Response(text_of(svc.registry), media_type="text/plain; version=0.0.4; charset=utf-8")
