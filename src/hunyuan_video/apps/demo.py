"""`hunyuan-video demo`: the page in this process, which workers of the same queue make the videos of. Imports no torch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from hunyuan_video.apps.queue import open_place
from hunyuan_video.apps.serve import listen_and_serve
from hunyuan_video.config import Place
from hunyuan_video.demo.desk import Desk
from hunyuan_video.demo.form import Form
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store


def serve_page(address: tuple[str, int], place: Place, desk: Callable[[Store, Results], Desk], opening: Form) -> None:
    """The page of a `desk` with a database and files, whose fields stand at `opening`, until a signal says to stop.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the address is taken.
    """
    store, results = open_place(place)
    made = desk(store, results)
    with tempfile.TemporaryDirectory(prefix="hunyuan-video-page-") as uploads:
        # Gradio reads these when it is imported: pictures that are uploaded go where nobody else reads, and nobody is told of anything.
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        try:
            from hunyuan_video.demo.site import create_site
        except ModuleNotFoundError as error:
            raise ImportError(f"The page needs {error.name}, which is not installed: pip install 'hunyuan-video[demo]'.") from error
        try:
            listen_and_serve(address, create_site(made, opening), "/")
        finally:
            made.aside.close()
            store.close()
