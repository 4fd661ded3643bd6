"""A language model in a folder, read by transformers: a tiny random one, whose words are put into its mouth."""

from __future__ import annotations

import json
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_checkpoint import LLM_SPECIALS, byte_tokenizer, llama_config
from tokenizers.decoders import ByteLevel
from transformers import LlamaForCausalLM

from hunyuan_video.rewriting import Rewriter, local, rewrite
from hunyuan_video.rewriting.backend import BackendError
from hunyuan_video.rewriting.local import Local

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm") / "tiny-instruct"
    torch.manual_seed(0)
    LlamaForCausalLM(llama_config()).save_pretrained(folder)
    tokenizer = byte_tokenizer(LLM_SPECIALS, "<|begin_of_text|> $A")
    tokenizer.chat_template, tokenizer.backend_tokenizer.decoder = TEMPLATE, ByteLevel()
    tokenizer.save_pretrained(folder)
    return folder


def saying(model: Local, words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts words into its mouth; what it reads comes back."""
    tokenizer, llm = model._loaded
    read: list[str] = []

    def generate(*, input_ids: torch.Tensor, **_options: Any) -> torch.Tensor:
        read.append(tokenizer.decode(input_ids[0]))
        return torch.cat([input_ids, torch.tensor([tokenizer(words, add_special_tokens=False)["input_ids"]])], dim=1)

    monkeypatch.setattr(llm, "generate", generate)
    return read


def test_it_reads_the_conversation_and_answers_with_what_is_new(folder, monkeypatch):
    model = Local(folder)
    read = saying(model, "A cat.", monkeypatch)
    assert model.answer([{"role": "system", "content": "Be short."}, {"role": "user", "content": "cat"}]) == "A cat."
    assert read[0].endswith("[system]Be short.[user]cat[assistant]")


def test_several_threads_are_answered_one_after_the_other(folder, monkeypatch):
    model, together = Local(folder), threading.Barrier(2)

    def answer(self: Local, messages: object) -> str:
        with pytest.raises(threading.BrokenBarrierError):  # nobody else comes in
            together.wait(0.2)
        together.reset()
        return "A cat."

    monkeypatch.setattr(Local, "_answer", answer)
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(model.answer, [[], []])] == ["A cat."] * 2


def test_its_answer_becomes_the_prompt(folder, monkeypatch):
    model = Rewriter(rewrite_model=str(folder)).backend()
    assert isinstance(model, Local)
    saying(model, "<think>hm</think>Prompt: Three cats play.", monkeypatch)
    rewritten = rewrite("三只猫", "normal", model)
    assert (rewritten.prompt, rewritten.backend) == ("Three cats play.", "local tiny-instruct")


def test_random_weights_make_a_real_answer_that_cannot_be_used(folder, monkeypatch):
    monkeypatch.setattr("hunyuan_video.rewriting.local.MAX_NEW_TOKENS", 8)
    rewritten = rewrite("三只猫", "normal", Local(folder))
    assert rewritten.prompt == "三只猫" and rewritten.notice == "The prompt stays as it is: the answer did not end within 8 tokens."


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU multiplies what is stored")
@pytest.mark.parametrize(("multiplies", "computes"), [(True, torch.bfloat16), (False, torch.float32)])
def test_what_a_cpu_does_not_multiply_is_converted(folder, tmp_path, monkeypatch, multiplies, computes):
    halved = shutil.copytree(folder, tmp_path / "halved")
    LlamaForCausalLM(llama_config()).bfloat16().save_pretrained(halved)
    monkeypatch.setattr(local, "multiplies_bfloat16", lambda: multiplies)
    assert Local(halved)._loaded[1].dtype == computes


def test_its_memory_is_free_when_it_is_gone(folder, monkeypatch):
    model = Local(folder)
    saying(model, "A cat.", monkeypatch)
    model.answer([{"role": "user", "content": "cat"}])
    left = weakref.ref(model._loaded[1])
    monkeypatch.undo()
    del model
    assert left() is None  # at once: a video model comes next


def test_a_model_that_cannot_converse_is_refused(folder, monkeypatch):
    model = Local(folder)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_a, **_k: SimpleNamespace(chat_template=None))
    with pytest.raises(BackendError, match="no chat template"):
        model.answer([])


def test_a_damaged_model_is_said_to_be_so(folder, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (damaged / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(BackendError, match="cannot be read as a language model"):
        Local(damaged).answer([])


def test_what_is_no_model_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"rewrite_model is qwen, which is no folder with a language model"):
        Local(Path("qwen"))
