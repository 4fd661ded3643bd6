"""What happens on the page: each event, wired to what `desk` does. What waits for the store or a picture does so in a thread, which Gradio
gives to plain functions; else a database that is locked would hold up the page for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from hunyuan_video.config import SHIFTS
from hunyuan_video.demo.desk import Desk, View
from hunyuan_video.demo.form import Form
from hunyuan_video.demo.layout import Page
from hunyuan_video.demo.markup import text
from hunyuan_video.demo.sealed import Sealed
from hunyuan_video.serving.jobs import QueueFullError
from hunyuan_video.serving.rules import LOCAL

WHILE_MOVING, ELSE = 1.0, 5.0  # seconds between looks at the store
UPLOADS_KEPT = (3600, 24 * 3600)  # seconds: how often old uploads are looked for, and how old
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
AT_ONCE: dict[str, Any] = QUIET | {"queue": False}  # what only asks the store goes around Gradio's own queue, which is for work


def build(desk: Desk, opening: Form) -> gr.Blocks:
    """The page of a desk, with its fields at `opening`."""
    with Sealed(title="HunyuanVideo", analytics_enabled=False, fill_width=True, delete_cache=UPLOADS_KEPT) as blocks:
        page = Page(desk.offer, opening, desk.loras())
        _wire(blocks, page, desk)
    return blocks


def _wire(blocks: gr.Blocks, page: Page, desk: Desk) -> None:
    seen = [page.shown, page.pages, page.last]
    sight = [page.shown, page.stage, page.gallery, page.cancel, page.timer, page.made, page.last]

    def look(shown: str | None, pages: int, last: tuple[str, str], request: gr.Request) -> list[Any]:
        return _sight(desk.view(_owner(request), shown, pages), last)

    async def generate(request: gr.Request, pages: int, last: tuple[str, str], *values: Any) -> list[Any]:
        form = page.form(values)
        try:
            if form.rewrite_mode != "off" and not form.rewritten.strip():
                form = await rewritten(form)
            job = await asyncio.to_thread(desk.make, _owner(request), form)
        except (ValueError, QueueFullError, OSError) as error:
            raise gr.Error(text(error), title="Not asked for", print_exception=False) from error
        return [*await asyncio.to_thread(look, job.id, pages, last, request), form.rewritten, form.rewriter]

    async def rewrite(*values: Any) -> list[str]:
        try:
            form = await rewritten(page.form(values))
        except ValueError as error:
            raise gr.Error(text(error), title="Not rewritten", print_exception=False) from error
        return [form.rewritten, form.rewriter]

    async def rewritten(form: Form) -> Form:
        form, notice = await desk.rewrite(form)
        if notice is not None:
            gr.Warning(text(notice))
        return form

    def cancel(shown: str | None, pages: int, last: tuple[str, str], request: gr.Request) -> list[Any]:
        if shown is not None:
            desk.store.cancel(shown, _owner(request))
        return look(shown, pages, last, request)

    async def pressed(shown: str | None, pages: int, last: tuple[str, str], event: gr.EventData, request: gr.Request) -> list[Any]:
        """One of a card's buttons, or the one for more of them."""
        owner, fields = _owner(request), [gr.skip()] * len(page.inputs)
        match event.act:
            case "more":
                pages += 1
            case "show":
                shown = event.job
            case "cancel":
                await asyncio.to_thread(desk.store.cancel, event.job, owner)
            case "delete":
                await asyncio.to_thread(desk.store.delete, event.job, owner)
            case "again":
                try:
                    fields = page.filled(*await desk.again(owner, event.job))
                except (LookupError, ValueError, OSError) as error:
                    raise gr.Error(text(error), title="Not filled in", print_exception=False) from error
                gr.Info("The settings of this video are in the form.", duration=3)
        return [pages, *await asyncio.to_thread(look, shown, pages, last, request), *fields]

    async def takes(*values: Any) -> AsyncIterator[str]:
        try:
            async for said in desk.takes(page.form(values)):
                yield f"<p>{text(said)}</p>"
        except ValueError as error:
            yield f"<p>{text(error)}</p>"

    def opened(request: gr.Request) -> list[Any]:
        return [_head(desk, _owner(request)), gr.update(choices=desk.loras())]

    blocks.load(opened, None, [page.head, page.fields["loras"]], **AT_ONCE)
    blocks.load(look, seen, sight, **AT_ONCE)
    page.timer.tick(look, seen, sight, **AT_ONCE)
    page.generate.click(
        generate, [page.pages, page.last, *page.inputs], [*sight, page.fields["rewritten"], page.fields["rewriter"]], **QUIET
    )
    page.rewrite.click(rewrite, page.inputs, [page.fields["rewritten"], page.fields["rewriter"]], **QUIET)
    page.fields["prompt"].input(lambda: ["", ""], None, [page.fields["rewritten"], page.fields["rewriter"]], **AT_ONCE)
    page.fields["stability"].input(lambda chosen: SHIFTS[chosen], page.fields["stability"], page.fields["shift"], **AT_ONCE)
    page.cancel.click(cancel, seen, sight, **AT_ONCE)
    page.gallery.click(pressed, seen, [page.pages, *sight, *page.inputs], **QUIET)
    sizes = [page.fields[name] for name in ("size", "resolution", "num_frames", "num_steps", "cfg_scale")]
    gr.on(
        [blocks.load, page.made.change, *(field.change for field in sizes)],
        takes,
        page.inputs,
        page.takes,
        trigger_mode="always_last",
        **QUIET,
    )


def _sight(view: View, last: tuple[str, str]) -> list[Any]:
    """What has changed of a view; the rest is left as it is, so that a video goes on playing."""
    now = (view.stage, view.gallery)
    changed = [new if new != old else gr.skip() for new, old in zip(now, last, strict=True)]
    pace = gr.Timer(WHILE_MOVING if view.is_moving else ELSE)
    return [view.job, *changed, gr.update(visible=view.can_cancel), pace, view.made, now]


def _owner(request: gr.Request) -> str:
    return request.username or LOCAL


def _head(desk: Desk, owner: str) -> str:
    who = "" if owner == LOCAL else f'<form method="post" action="logout">{text(owner)} <button>Log out</button></form>'
    return f"<h1>HunyuanVideo</h1><p>with {text(desk.offer.name)}</p>{who}"
