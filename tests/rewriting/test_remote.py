"""A language model behind a URL: what it is asked, and every way in which it may fail."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from fake_llm import completion, endless, failing, serving

from hunyuan_video.rewriting.backend import BackendError
from hunyuan_video.rewriting.remote import Remote

ASKED = [{"role": "user", "content": "a {cat} 🐈"}]


def test_the_model_is_asked_as_openai_has_it():
    with serving("A cat.") as llm:
        assert Remote(llm.url, "qwen").answer(ASKED) == "A cat."
    assert llm.paths == ["/v1/chat/completions"] and llm.requests == [{"model": "qwen", "messages": ASKED}]
    assert "Authorization" not in llm.headers[0]


@pytest.mark.parametrize("ending", ["/", "/chat/completions"])
def test_the_address_may_end_as_people_copy_it(ending):
    with serving("A cat.") as llm:
        Remote(llm.url + ending, "qwen").answer(ASKED)
    assert llm.paths == ["/v1/chat/completions"]


def test_the_key_goes_to_the_server_and_into_no_words():
    with serving("A cat.", failing(401, b"wrong key sk-secret")) as llm:
        remote = Remote(llm.url, "qwen", "sk-secret\n")
        remote.answer(ASKED)
        with pytest.raises(BackendError) as refused:
            remote.answer(ASKED)
    assert llm.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "refuses the key (401)" in str(refused.value) and not refused.value.passing
    assert "secret" not in f"{refused.value} {remote!r} {remote.name}"


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown():
    with pytest.raises(ValueError, match="characters that no key has") as refused:
        Remote("http://localhost/v1", "qwen", "sk-secret\nX: y")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", ["A cat.", [{"type": "text", "text": "A "}, {"type": "text", "text": "cat."}]])
def test_the_content_may_come_in_parts(content):
    with serving(completion(content)) as llm:
        assert Remote(llm.url, "qwen").answer(ASKED) == "A cat."


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>Welcome</html>", "no answer of a chat model"),
        (b"\xff\x00garbage", "no answer of a chat model"),
        (b"", "no answer of a chat model"),
        (b'{"choices": []}', "no answer of a chat model"),
        (b'{"choices": [{"message": null}]}', "no answer of a chat model"),
        (b'{"choices": "abc"}', "no answer of a chat model"),
        (b"[" * 100_000, "no answer of a chat model"),
        (b'data: {"choices": [{"delta": {"content": "A"}}]}\n\ndata: [DONE]\n\n', "no answer of a chat model"),
        (completion(None), "the answer is empty"),
        (completion(" \n"), "the answer is empty"),
        (completion(7), "the answer is empty"),
        (completion("A cat walks on", finish_reason="length"), "cut off by the server's limit"),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(body, reason):
    with serving(body) as llm, pytest.raises(BackendError, match=reason) as failed:
        Remote(llm.url, "qwen").answer(ASKED)
    assert failed.value.passing


@pytest.mark.parametrize(
    ("status", "reason", "passing"),
    [
        (500, "failed with status 500", True),
        (503, "failed with status 503", True),
        (429, "failed with status 429", True),
        (400, "failed with status 400", False),
        (404, "no model 'qwen'", False),
        (403, "refuses the key", False),
    ],
)
def test_a_status_says_whether_asking_again_may_help(status, reason, passing):
    with serving(failing(status, b"<h1>oops</h1>")) as llm, pytest.raises(BackendError, match=reason) as failed:
        Remote(llm.url, "qwen").answer(ASKED)
    assert failed.value.passing == passing


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_for_it_would_take_prompt_and_key_elsewhere(status):
    with serving("A dog.") as elsewhere, serving(failing(status, Location=f"{elsewhere.url}/chat/completions")) as llm:
        with pytest.raises(BackendError, match=rf"sends elsewhere \({status}\)"):
            Remote(llm.url, "qwen", "sk-secret").answer(ASKED)
    assert elsewhere.paths == []


def test_an_endless_answer_is_left():
    with serving(endless) as llm, pytest.raises(BackendError, match="endless"):
        Remote(llm.url, "qwen").answer(ASKED)


def test_a_server_that_says_nothing_is_left():
    left = threading.Event()
    with serving(lambda handler: left.wait(60) and None) as llm:
        with pytest.raises(BackendError, match=r"did not answer within 0\.2 seconds") as failed:
            Remote(llm.url, "qwen", timeout=0.2).answer(ASKED)
        left.set()
    assert failed.value.passing


def test_a_body_that_breaks_off_is_no_answer():
    with serving(failing(200, b"{}", Content_Length="1000")) as llm, pytest.raises(BackendError, match=r"cannot be reached|no answer"):
        Remote(llm.url, "qwen", timeout=5).answer(ASKED)


def test_nobody_there_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(BackendError, match="cannot be reached") as failed:
            Remote(f"http://127.0.0.1:{free.getsockname()[1]}/v1", "qwen").answer(ASKED)
    assert failed.value.passing


@pytest.mark.parametrize("url", ["", "localhost:11434", "ftp://host/v1", "file:///etc/passwd", "http://", "http://a b/v1", "http://h:x/v1"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(ValueError, match=r"rewrite_url is .*must be an http or https address"):
        Remote(url, "qwen")


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret", "http://host/v1#secret"])
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match=r"plain address.*HUNYUAN_VIDEO_REWRITE_KEY") as refused:
        Remote(url, "qwen")
    assert "secret" not in str(refused.value)


def test_the_body_is_json_whatever_the_prompt_holds():
    awkward = [{"role": "user", "content": '"}] {0} \\ \x00 🐈\u200d⬛ ' + "x" * 1_000_000}]
    with serving("A cat.") as llm:
        Remote(llm.url, "qwen").answer(awkward)
    assert json.loads(json.dumps(llm.requests[0]["messages"])) == awkward
