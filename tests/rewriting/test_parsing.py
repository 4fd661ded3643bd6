"""The prompt is found in whatever a language model says around it."""

from __future__ import annotations

import time

import pytest

from hunyuan_video.rewriting.parsing import prompt_in

PROMPT = "A cat walks on grass, soft light."


@pytest.mark.parametrize(
    "answer",
    [
        PROMPT,
        f"  {PROMPT}\n",
        f'"{PROMPT}"',
        f"“{PROMPT}”",
        f"Prompt: {PROMPT}",
        f"**Rewritten prompt:** {PROMPT}",
        f"### Enhanced Prompt:\n\n{PROMPT}",
        f"Sure! Here is the rewritten prompt:\n\n{PROMPT}",
        f"Certainly. Here's your prompt: {PROMPT}",
        f'Here is the result:\n"{PROMPT}"\n\nLet me know if you want changes!',
        f"{PROMPT}\n\nNote: I kept the cat.",
        f"```\n{PROMPT}\n```",
        f"Here it is:\n```text\n{PROMPT}\n```\nEnjoy!",
        f'```json\n{{"prompt": "{PROMPT}"}}\n```',
        f'{{"rewritten_prompt": "{PROMPT}", "reason": "it is clearer"}}',
        f'Here you go: {{"whatever": "{PROMPT}"}} :)',
        f'{{"Prompt": "{PROMPT}"}}',
        f"<think>The user wants a cat. Prompt: a dog</think>\n{PROMPT}",
        f"a cat, so\n</think>\n\n{PROMPT}",
        f"<THINKING>one</THINKING>{PROMPT}",
        "A cat walks\non grass,\n  soft light.",
    ],
)
def test_the_prompt_is_taken_out_of_what_is_around_it(answer):
    assert prompt_in(answer) == PROMPT


@pytest.mark.parametrize("answer", ["", "\n", "<think>I never stop", "```\n```", '""'])
def test_an_answer_without_a_prompt_has_none(answer):
    assert prompt_in(answer) == ""


@pytest.mark.parametrize("text", ["A {red} cat {", "A {} sign", "A sign that says “Open” and another “Closed”", "A prompt: nobody moves"])
def test_what_belongs_to_the_prompt_stays(text):
    assert prompt_in(text) == text


def test_nothing_that_could_speak_to_a_terminal_is_left():
    assert prompt_in("A \x1b[31mred\x00 cat\ud800.") == "A [31mred cat ."


@pytest.mark.parametrize("junk", ["<think>", "```", "\n\n", "*", '{"a":'])
def test_a_lot_of_junk_is_read_in_linear_time(junk):
    start = time.process_time()
    prompt_in(junk * (2**18 // len(junk)))
    assert time.process_time() - start < 10  # and minutes otherwise
