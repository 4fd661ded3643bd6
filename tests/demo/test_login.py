"""Who may come in, and for how long."""

from __future__ import annotations

import pytest
from served import ANN, BOB

from hunyuan_video.demo.login import LASTS, admits, owner_of, session
from hunyuan_video.serving.security import digest_of

KEYS = {"ann": digest_of(ANN), "名前.x": digest_of(BOB)}


def test_a_key_opens_for_its_own_name_alone() -> None:
    assert admits(KEYS, "ann", ANN)
    assert not any(admits(KEYS, name, key) for name, key in (("ann", BOB), ("ann", ""), ("eve", ANN), ("", ""), ("eve", "")))


@pytest.mark.parametrize("name", KEYS)
def test_a_session_says_whose_it_is_until_it_ends(name: str) -> None:
    cookie = session(KEYS, name, 1000.0)
    assert owner_of(KEYS, cookie, 1000.0 + LASTS - 1) == name
    assert owner_of(KEYS, cookie, 1000.0 + LASTS) is None


def test_a_session_ends_with_its_key() -> None:
    cookie = session(KEYS, "ann", 1000.0)
    assert owner_of({"ann": digest_of(BOB)}, cookie, 1001.0) is None and owner_of({}, cookie, 1001.0) is None


def test_a_session_that_was_changed_is_none() -> None:
    cookie = session(KEYS, "ann", 1000.0)
    said, end, signature = cookie.split(".")
    others = [
        "",
        ".",
        "..",
        "a.b.c",
        f"{said}.{int(end) + 1}.{signature}",
        f"{said}.{end}.{signature[:-1]}",
        f"{said}.{end}.é",
        f"é.{end}.{signature}",
    ]
    assert [owner_of(KEYS, other, 1001.0) for other in [None, *others]] == [None] * (len(others) + 1)
