"""The page in a real browser, at the width of a desk's screen and of a phone's."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from chromium_here import MARKS
from desks import Kept, listening
from served import picture

from hunyuan_video.video import save_video

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of what Gradio asks pandas for
ROOT = Path(__file__).parents[2]
SHOWN, VIDEO = "#stage .screen img", "#stage .screen video"


class Visit:
    """Somebody at the page."""

    def __init__(self, browser: Browser, address: str, width: int, height: int, patience: float = 30):
        self.address, self.wrong, self.elsewhere = address, [], []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(1000 * patience)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda asked: self.note(asked.url))
        self.page.goto(address)
        self.page.wait_for_selector("#generate")

    def note(self, url: str) -> None:
        if not url.startswith((f"{self.address}/", "data:", "blob:")):
            self.elsewhere.append(url)

    def ask(self, prompt: str) -> None:
        self.page.fill("#prompt textarea", prompt)
        self.page.click("#generate")
        self.page.wait_for_function("prompt => document.querySelector('#stage .prompt')?.innerText === prompt", arg=prompt)

    def said(self, words: str) -> None:
        self.page.wait_for_function("words => document.querySelector('#stage .said')?.innerText.includes(words)", arg=words)

    def preview(self, before: str | None = None) -> str:
        """The address of one that is seen, and is another than `before`."""
        self.page.wait_for_function(
            f"before => {{ const i = document.querySelector('{SHOWN}'); return i && i.src !== before && i.naturalWidth > 0 }}", arg=before
        )
        return str(self.page.evaluate(f"document.querySelector('{SHOWN}').src"))

    def plays(self) -> None:
        self.page.wait_for_function(f"document.querySelector('{VIDEO}')?.currentTime > 0.1")

    def fits(self) -> bool:
        """On a desk's screen and on a phone's, without going sideways."""
        size, fits = self.page.viewport_size, []
        for width in (1280, 390):
            self.page.set_viewport_size({"width": width, "height": 844})
            fits.append(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
        assert size is not None
        self.page.set_viewport_size(size)
        return all(fits)

    def is_clean(self) -> bool:
        """Nothing broke, and nothing was asked of another host."""
        return not self.wrong and not self.elsewhere


def test_a_video_is_asked_for_seen_while_it_is_made_played_and_found_again(chromium: Browser, tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    with listening(kept.desk) as address:
        visit = Visit(chromium, address, 1280, 900)
        page, hostile = visit.page, "<b>A</b> {{cat}} ${1+1} `x` \\ 猫"
        visit.ask(hostile)
        visit.said("Next in the queue.")
        claim = kept.begin()
        kept.step(claim, 1)
        first = visit.preview()
        assert visit.fits()
        kept.step(claim, 2)
        assert visit.preview(before=first) != first
        visit.said("step 2 of 4")
        made = kept.finish(claim)
        visit.plays()
        visit.said(f"with seed {made.order.sampling.seed}.")
        assert visit.fits()

        visit.ask("A dog")
        claim = kept.begin()
        kept.step(claim, 1)
        visit.preview()
        page.click("#cancel")
        visit.said("Stopping at the end of this step")
        kept.store.fail(claim, "cancelled", "Cancelled.")
        visit.said("Cancelled.")

        page.reload()
        page.wait_for_selector(".card")
        assert page.locator(".card").count() == 2 and page.input_value("#prompt textarea") == ""
        card = page.locator(f".card[data-id={made.id}]")
        with page.expect_download() as download:
            card.get_by_text("Download").click()
        assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
        card.get_by_text("Use these settings").click()
        page.wait_for_function("prompt => document.querySelector('#prompt textarea').value === prompt", arg=hostile)
        page.get_by_text("Advanced").click()
        assert page.input_value("#seed textarea, #seed input") == str(made.order.sampling.seed)
        card.locator(".still").click()
        visit.plays()
        page.on("dialog", lambda dialog: dialog.accept())
        card.get_by_text("Delete").click()
        page.wait_for_function("document.querySelectorAll('.card').length === 1")
        assert visit.fits() and visit.is_clean(), (visit.wrong, visit.elsewhere)
        page.close()
    kept.close()


def test_pictures_a_clip_and_a_loop_are_given_by_hand(chromium: Browser, tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    still, clip = tmp_path / "still.png", tmp_path / "clip.mp4"
    still.write_bytes(picture(64, 64, 90))
    save_video(np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3), np.uint8), clip)
    with listening(kept.desk) as address:
        visit = Visit(chromium, address, 1280, 900)
        page = visit.page
        page.get_by_text("First picture").click()
        page.get_by_text("Last picture, clip, loop").click()
        for part in ("picture", "last"):
            page.set_input_files(f"#{part} input[type=file]", str(still))
            page.wait_for_selector(f"#{part} img")
        visit.ask("Between two pictures")
        between = kept.begin().job.order
        assert between.image is not None and [held.frame for held in between.keyframes] == [-1]

        for part in ("picture", "last"):
            page.hover(f"#{part}")
            page.locator(f"#{part} button[aria-label='Clear'], #{part} button[aria-label='Remove Image']").first.click()
        page.set_input_files("#clip input[type=file]", str(clip))
        page.wait_for_selector("#clip .file-preview")
        page.fill("#strength input[type=number]", "0.4")
        page.keyboard.press("Tab")
        visit.ask("Made anew")
        anew = kept.begin().job.order
        assert anew.clip is not None and anew.image is None and anew.sampling.strength == 0.4

        page.locator("#clip button[aria-label='Remove this file'], #clip button[aria-label='Clear']").first.click()
        page.check("#loop input")
        visit.ask("Around")
        assert kept.begin().job.order.sampling.loop
        assert visit.fits() and visit.is_clean(), (visit.wrong, visit.elsewhere)
        page.close()
    kept.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_miniature_shows_its_videos_while_workers_make_them(chromium: Browser, tmp_path: Path, width: int, height: int) -> None:
    """By the official command: its page, its queue and its worker are the processes that a user has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "gradio_server.py"), "--flow-reverse", "--save-path", str(tmp_path / "made")]
    environment = {"SERVER_PORT": str(port), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "Serving on" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        visit = Visit(chromium, f"http://127.0.0.1:{port}", width, height, patience=120)
        visit.ask("A red car drives to the right on the beach")
        first = visit.preview()
        assert re.search(r"preview\?1\.\d+$", visit.preview(before=first))
        visit.plays()
        visit.said("Made in")
        visit.ask("A boat moves right on the sea")
        visit.preview()
        visit.page.click("#cancel")
        visit.said("Cancelled.")
        visit.page.reload()
        visit.page.wait_for_selector(".card")
        visit.page.get_by_text("Use these settings").last.click()
        visit.page.wait_for_function("document.querySelector('#prompt textarea').value.startsWith('A red car')")
        visit.page.wait_for_function("document.querySelector('#takes').innerText.includes('took here')")
        assert visit.fits() and visit.is_clean(), (visit.wrong, visit.elsewhere)
        visit.page.close()
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait() == 128 + signal.SIGTERM
