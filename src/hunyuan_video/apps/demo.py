"""`hunyuan-video demo`: the page in this process, which workers of the same queue make the videos of. Imports no torch."""

from __future__ import annotations

import os
import tempfile

from hunyuan_video.apps.queue import open_place
from hunyuan_video.apps.serve import listen_and_serve
from hunyuan_video.config import Place, Sampling
from hunyuan_video.demo.desk import Desk
from hunyuan_video.demo.estimate import Planner
from hunyuan_video.demo.form import Form
from hunyuan_video.demo.offer import Offer
from hunyuan_video.serving.rules import Rules
from hunyuan_video.weights import Weights


def serve_page(
    address: tuple[str, int], place: Place, rules: Rules, found: Weights, planner: Planner | None, sampling: Sampling, *prompts: str
) -> None:
    """The page, whose fields stand at these settings and prompts (the second is the negative one), until a signal says to stop.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the address is taken.
    """
    store, results = open_place(place)
    offer = Offer.of(found)
    desk = Desk(store, results, rules, offer, planner)
    with tempfile.TemporaryDirectory(prefix="hunyuan-video-page-") as uploads:
        # Gradio reads these when it is imported: pictures that are uploaded go where nobody else reads, and nobody is told of anything.
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        try:
            from hunyuan_video.demo.site import create_site
        except ModuleNotFoundError as error:
            raise ImportError(f"The page needs {error.name}, which is not installed: pip install 'hunyuan-video[demo]'.") from error
        try:
            listen_and_serve(address, create_site(desk, Form.at(sampling, offer, *prompts)), "/")
        finally:
            desk.aside.close()
            store.close()
