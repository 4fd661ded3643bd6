"""The page in a real browser, at a desk and on a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chromium_here import MARKS
from rated import listening, study_of

from hunyuan_video.evaluation.study import Study
from hunyuan_video.rating.design import Design
from hunyuan_video.rating.desk import Desk
from hunyuan_video.rating.page import create_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = MARKS
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
IS_FREE = "e => { const r = e.getBoundingClientRect(); return e.contains(document.elementFromPoint(r.x + 9, r.y + 9)); }"
SMALL = "[...document.querySelectorAll('button, a')].filter(e => e.checkVisibility() && (e.offsetHeight < 44 || e.offsetWidth < 44)).length"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_of(tmp_path_factory.mktemp("study"), num_prompts=2)


class Visit:
    """Somebody at the page, who has begun."""

    def __init__(self, browser: Browser, address: str, size: dict[str, int], language: str = "en-GB"):
        self.wrong: list[str] = []
        self.page = browser.new_context(viewport=size, locale=language, has_touch=size is PHONE).new_page()
        self.page.set_default_timeout(120_000)  # milliseconds; others may be at work here
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda asked: None if asked.url.startswith(("data:", address)) else self.wrong.append(asked.url))
        self.page.goto(address)
        self.page.locator("#begin").click()
        self.at(1)

    def at(self, number: int) -> None:
        """Waits until it is there, with its clips."""
        self.page.locator("#count", has_text=f"{number} /").wait_for()
        self.page.locator("video").last.evaluate("video => video.readyState >= 3 || new Promise(done => video.oncanplay = done)")

    def plays(self) -> None:
        for video in self.page.locator("video").all():
            video.evaluate(
                "video => video.currentTime > 0 || new Promise(done => video.ontimeupdate = () => video.currentTime > 0 && done())"
            )

    def fits(self) -> bool:
        """Without going sideways, and with buttons that a thumb finds."""
        wide, small = self.page.evaluate(f"[document.documentElement.scrollWidth > innerWidth, {SMALL}]")
        return not wide and small == 0

    def answer(self, word: str) -> None:
        for question in ("text", "motion", "visual"):
            self.page.locator(f"[data-question={question}]").get_by_text(word, exact=True).click()


@pytest.mark.parametrize(("mode", "word"), [("absolute", "Yes"), ("pairs", "Tie")])
def test_on_a_phone_a_rater_sees_all_clips_answers_by_thumb_and_is_thanked(chromium, study, mode, word):
    desk = Desk(study, Design(mode))
    before = len(desk.store.rows())
    with listening(create_page(desk)) as address:
        visit = Visit(chromium, address, PHONE)
        assert visit.fits()
        visit.plays()
        total = int(visit.page.locator("#count").inner_text().split("/")[1])
        for number in range(1, total + 1):
            visit.at(number)
            visit.answer(word)
            visit.page.locator("#next").click()
        visit.page.locator("#finished").wait_for()
        assert visit.fits() and len(desk.store.rows()) - before == 3 * total and visit.wrong == []
        visit.page.context.close()
    desk.close()


@pytest.mark.parametrize("size", [PHONE, {"width": 320, "height": 568}])
def test_what_went_wrong_is_said_beside_what_is_to_be_pressed(chromium, study, size):
    desk = Desk(study, Design())
    with listening(create_page(desk)) as address:
        visit = Visit(chromium, address, size)
        visit.answer("Yes")
        visit.page.route("**/api/task/*", lambda route: route.abort())
        visit.page.locator("#next").click()
        visit.page.locator("#trouble").wait_for()
        for control in ("#next", "[data-question=visual] button"):
            spot = visit.page.locator(control).first
            spot.scroll_into_view_if_needed()
            assert spot.evaluate(IS_FREE)
        visit.page.unroute("**/api/task/*")
        visit.page.locator("#next").click()
        visit.at(2)
        assert visit.page.locator("#trouble").is_hidden()
        visit.page.context.close()
    desk.close()


def test_at_a_desk_keys_are_enough_and_a_reload_loses_nothing(chromium, study):
    desk = Desk(study, Design("pairs"))
    before = len(desk.store.rows())
    with listening(create_page(desk)) as address:
        visit = Visit(chromium, address, DESK)
        page = visit.page
        for key in ("ArrowLeft", "ArrowUp", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        visit.at(2)
        said = desk.store.rows()[before:]
        assert {row.question: row.answer for row in said} == {"text": "left", "motion": "tie", "visual": "bad"}
        assert all(0 < row.latency_ms < 60_000 for row in said)
        page.reload()
        visit.at(2)
        page.keyboard.press("Backspace")
        visit.at(1)
        assert page.locator("[aria-pressed=true]").all_inner_texts() == ["A", "Tie", "Both bad"]
        page.locator("[data-question=motion]").get_by_text("B", exact=True).click()
        page.keyboard.press("Enter")
        visit.at(2)
        assert [row.answer for row in desk.store.rows()[before + 3 :]] == ["left", "right", "bad"]
        assert visit.fits() and visit.wrong == []
        page.context.close()
    desk.close()


def test_the_page_speaks_chinese_to_whom_does_and_english_at_a_press(chromium, study):
    desk = Desk(study, Design("absolute"))
    with listening(create_page(desk)) as address:
        visit = Visit(chromium, address, PHONE, "zh-CN")
        assert visit.fits() and "运动自然吗？" in visit.page.locator("#questions").inner_text()
        visit.page.locator("#language").click()
        assert "Does it move well?" in visit.page.locator("#questions").inner_text() and visit.wrong == []
        visit.page.context.close()
    desk.close()


def test_who_is_not_invited_is_told_so(chromium, study):
    desk = Desk(study, Design("absolute"))
    with listening(create_page(desk, ("an-invitation-of-24-char",), is_local=True)) as address:
        page = chromium.new_page()
        page.goto(address)
        page.locator("#begin").click()
        assert "link of invitation" in page.locator("#refused").inner_text()
        page.goto(f"{address}/?invitation=an-invitation-of-24-char")
        page.locator("#begin").click()
        page.locator("video").first.wait_for()
        page.close()
    desk.close()
