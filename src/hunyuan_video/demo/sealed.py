"""Gradio's page, which takes no file but those that were uploaded to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder


class Sealed(gr.Blocks):
    """Whoever sends an event may name a file in any field. Gradio fetches it from other hosts, and from anywhere on this machine: a mounted
    page it takes for one that is still being built, and a picture without "meta" for one that it has looked at."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False) -> list[Any]:
        uploads = Path(get_upload_folder()).resolve()
        for path in _named(inputs):
            if not isinstance(path, str) or not Path(path).resolve().is_relative_to(uploads):
                raise gr.Error("This file was not uploaded here; choose it again.", title="Not taken", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)


def _named(value: Any) -> Iterator[Any]:
    """Every path that something from a browser has, however deep."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _named(inner)
