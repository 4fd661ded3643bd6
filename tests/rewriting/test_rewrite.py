"""Asked, read, checked, asked once more, else as it was typed; and not asked twice for the same."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fake_llm import failing, serving

from hunyuan_video.request import Rewriting
from hunyuan_video.rewriting import Cache, Rewriter, Rewritten, rewrite
from hunyuan_video.rewriting.backend import BackendError, Messages
from hunyuan_video.rewriting.remote import Remote

GOOD = "Three cats walk on grass. Realistic, natural lighting, peaceful."


class Scripted:
    """A language model that says what it was told to, in this order."""

    name = "scripted"

    def __init__(self, *answers: str | BackendError):
        self.answers, self.asked = list(answers), list[Messages]()

    def answer(self, messages: Messages) -> str:
        self.asked.append(messages)
        answer = self.answers.pop(0)
        if isinstance(answer, BackendError):
            raise answer
        return answer


def test_a_good_answer_is_taken_and_told_of():
    rewritten = rewrite("三只猫", "master", Scripted(f"<think>…</think> Prompt: {GOOD}"))
    assert rewritten == Rewritten(GOOD, "三只猫", "master", "scripted") and rewritten.record == Rewriting("三只猫", "master", "scripted")


def test_the_modes_are_told_apart():
    told = []
    for mode in ("normal", "master"):
        model = Scripted(GOOD)
        rewrite("三只猫", mode, model)
        told.append(model.asked[0][0]["content"])
    assert told[0] != told[1] and "understood" in told[0] and "composition" in told[1]


def test_the_prompt_is_a_message_of_its_own_and_untouched():
    model = Scripted(GOOD)
    rewrite("三只猫 {0} {} %s 🐈", "normal", model)
    assert model.asked[0][1] == {"role": "user", "content": "三只猫 {0} {} %s 🐈"}


def test_a_bad_answer_is_complained_of_once():
    model = Scripted("Cats walk on grass.", GOOD)
    assert rewrite("三只猫", "normal", model).prompt == GOOD
    assert model.asked[1][2] == {"role": "assistant", "content": "Cats walk on grass."}
    assert "it lacks the number 3" in model.asked[1][3]["content"]


def test_after_two_bad_answers_the_prompt_stays_and_a_notice_says_why():
    rewritten = rewrite("三只猫", "normal", Scripted("Cats walk.", "猫"))
    assert rewritten.prompt == "三只猫" and rewritten.record is None
    assert rewritten.notice == (
        "The prompt stays as it is: the answer of the language model cannot be used (it is not in English; it lacks the number 3)."
    )


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not():
    assert rewrite("三只猫", "normal", Scripted(BackendError("late", passing=True), GOOD)).prompt == GOOD
    lasting = Scripted(BackendError("no such model", passing=False), GOOD)
    assert rewrite("三只猫", "normal", lasting).notice == "The prompt stays as it is: no such model." and len(lasting.asked) == 1
    assert rewrite("三只猫", "normal", Scripted(*[BackendError("late", passing=True)] * 2)).notice == "The prompt stays as it is: late."


def test_a_server_that_fails_once_is_asked_again():
    with serving(failing(500), GOOD) as llm:
        assert rewrite("三只猫", "normal", Remote(llm.url, "qwen")).prompt == GOOD
    assert len(llm.requests) == 2


@pytest.mark.parametrize("prompt", ["", " \n", "x" * 1_000_000, "a\ud800"])
def test_what_can_be_no_prompt_is_refused_and_nobody_is_asked(prompt):
    with pytest.raises(ValueError, match="The prompt "):
        rewrite(prompt, "normal", Scripted())


# --- The cache ---


def test_the_same_question_is_asked_once(tmp_path):
    model = Scripted(GOOD, "Three white cats.", "Three black cats.")
    cache = Cache(tmp_path / "rewrites")
    assert [rewrite("三只猫", "normal", model, cache).prompt for _ in range(2)] == [GOOD, GOOD] and len(model.asked) == 1
    assert rewrite("三只猫", "master", model, cache).prompt == "Three white cats."
    assert rewrite("三只猫!", "normal", model, cache).prompt == "Three black cats."


def test_a_prompt_that_stayed_as_it_was_is_asked_again(tmp_path):
    cache = Cache(tmp_path)
    assert rewrite("三只猫", "normal", Scripted("猫", "猫"), cache).notice is not None
    assert rewrite("三只猫", "normal", Scripted(GOOD), cache).prompt == GOOD


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"answer": 3}', b'{"answer": "Cats without a number."}'])
def test_a_damaged_answer_is_not_there(tmp_path, content):
    cache = Cache(tmp_path)
    rewrite("三只猫", "normal", Scripted(GOOD), cache)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert rewrite("三只猫", "normal", Scripted("Three cats again."), cache).prompt == "Three cats again."


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    (tmp_path / "file").write_text("")
    assert rewrite("三只猫", "normal", Scripted(GOOD), Cache(tmp_path / "file" / "rewrites")).prompt == GOOD


# --- Who rewrites ---


def test_without_a_model_the_rules_rewrite():
    assert Rewriter().backend() is None and rewrite("三只猫").backend == "offline"


def test_a_url_and_a_model_name_a_server():
    assert Rewriter("http://localhost:11434/v1/", "qwen").backend("key") == Remote("http://localhost:11434/v1", "qwen", "key")


def test_a_url_alone_is_refused():
    with pytest.raises(ValueError, match=r"rewrite_url is given without rewrite_model.*http://a/models lists them"):
        Rewriter("http://a")


def test_no_address_is_recorded_for_files_travel():
    assert Remote("http://intranet.example/v1", "qwen").name == "remote qwen"


def test_rewriting_by_rules_or_a_server_imports_no_torch():
    code = (
        "import sys; from hunyuan_video import cli; assert cli.main(['rewrite', '三只猫']) == 0; import hunyuan_video.rewriting.remote; "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-X", "utf8", "-c", code], check=True, stdout=subprocess.DEVNULL)
