"""The command line: what tyro makes of it, and one sentence where it cannot. Imports no torch."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import partial, wraps
from typing import Any, NoReturn, TypeVar, get_type_hints

import tyro

T = TypeVar("T")

_NOTHING = re.compile(r"\{None\}\||(?<=\{)None,")  # what stands for an option left out

_KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "PATH": "a path",
    "STR": "a word",
    "{True,False}": "True or False",
}


def parse(kind: Callable[..., T], arguments: list[str], prog: str) -> T:
    """The settings that `arguments` say, of a class, or of a function that returns what it is given (see `deferred`): what it prints
    meanwhile is taken for tyro's. Ends the process after a help that was asked for.

    Raises:
        ValueError: they say none; in a sentence.
    """
    told, complaint = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complaint), _wide():
            return tyro.cli(kind, args=arguments, prog=prog)
    except SystemExit as end:
        if not end.code:
            print(_help(told.getvalue(), _groups(kind)))
            raise
    raise ValueError(_sentence(complaint.getvalue(), prog))


def deferred(work: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A function with the same arguments that does not work yet, but gives what will."""

    @wraps(work)
    def prepared(*arguments: Any, **options: Any) -> Callable[[], None]:
        return partial(work, *arguments, **options)

    return prepared


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """A terminal on which tyro breaks no line."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _groups(kind: Callable[..., Any]) -> dict[str, str]:
    """What the options of settings that are given together are about, by option: the first sentence of their class."""
    groups: dict[str, str] = {}
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint) and isinstance(hint, type):
            title = (hint.__doc__ or "").partition(".")[0]
            groups |= {f"--{field.name.replace('_', '-')}": title for field in fields(hint)}
    return groups


def _help(text: str, groups: dict[str, str]) -> str:
    """tyro's help, in groups and as wide as the terminal; of defaults each once, and none that is nothing."""
    head, *lines = text.splitlines()
    about, entries = "", list[list[str]]()
    for line in lines:
        if found := re.match(r"  (-\S.*?|[A-Z\[]\S*)(?:  +(.*?))? *$", line):
            entries.append([_NOTHING.sub("", found[1]), found[2] or ""])
        elif entries and re.match(r" {6,}\S", line):
            entries[-1][1] = f"{entries[-1][1]} {line.strip()}".strip()
        elif line and not line.startswith(" "):
            about = line
    width = min(shutil.get_terminal_size().columns, 120)
    usage = textwrap.wrap(_NOTHING.sub("", head), width, subsequent_indent="  ", break_on_hyphens=False)
    out, parts = [*usage, "", *textwrap.wrap(about, width)], dict[str, list[str]]()
    for name, said in entries:
        first, *more = said.split(" (default: ")
        said = first if more[:1] == ["None)"] else " (default: ".join([first, *more[:1]])
        lines = textwrap.wrap(said.removeprefix("(default: None)"), width - 26, break_on_hyphens=False) or [""]
        names = textwrap.wrap(name if len(name) < width else name.replace(",", ", "), width, initial_indent="  ", subsequent_indent="    ")
        shown = [f"  {name:<23} {lines.pop(0)}"] if len(name) < 24 else names
        flag = re.split("[ ,]", name)[0]
        parts.setdefault(groups.get(flag, "Options"), []).extend([*shown, *(f"{'':26}{line}" for line in lines if line)])
    for title, rows in parts.items():
        out += ["", f"{title}:", *rows]
    return "\n".join(out)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a ValueError, with a sentence, where others print their usage and end the process."""

    def error(self, message: str) -> NoReturn:
        wrong = r"invalid (\w+) value: (.+)|invalid choice: (.+) \(choose from (.+)\)|expected .*"
        found = re.fullmatch(rf"argument (\S+): (?:{wrong})", message)
        if found is not None and found[3]:
            raise ValueError(f"{found[1]} is {found[3]}; it must be {_KINDS.get(found[2].upper(), found[2])}.")
        if found is not None and found[4]:
            raise ValueError(f"{found[1]} is {found[4]}; it must be {_one_of(found[5])}.")
        if found is not None:
            raise ValueError(f"{found[1]} lacks its value.")
        if unknown := re.fullmatch(r"unrecognized arguments: (.+)", message):
            raise ValueError(_unknown(unknown[1].split(), list(self._option_string_actions), self.prog))
        raise ValueError(f"{message}; `{self.prog} --help` says more.")


def _sentence(box: str, prog: str) -> str:
    """Of what tyro says: a title, what is wrong, and help, with lines between them, perhaps in a box."""
    inside = " ".join(re.sub("[╭╮╰╯│]", " ", box).split())
    _title, text, *others = (part.strip() for part in re.split("[─-]{8,}", inside))
    more = " ".join(others)
    if found := re.match(r"Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*?)'\]", text):
        kinds = [_KINDS.get(kind, kind) for kind in found[2].split("|") if kind != "{None}"]  # which is: left out
        return f"{found[1]} is {found[3]!r}; it must be {' or '.join(kinds)}."
    if found := re.match(r"Error parsing (\S+): .*?(?:int\(\)|float).*?'(.*)'", text):
        return f"{found[1]} is {found[2]!r}; it must be {'a whole number' if 'int()' in text else 'a number'}."
    if found := re.match(r"invalid choice '(.*?)' for argument '(\S+)'\. Expected one of \((.*)\)", text):
        return f"{found[2]} is {found[1]!r}; it must be {_one_of(found[3])}."
    if found := re.match(r"Missing value for argument '(\S+)'", text):
        return f"{found[1]} lacks its value."
    if found := re.match(r"Missing from [^:]*: (.*)", text):
        # "--flag {kinds} what it is (required)", or without a flag "KIND what it is (required)".
        lacking = [re.match(r"(--[\w-]+)|\S+ ([^:]+)", part.strip()) for part in found[1].split("(required)")]
        names = [part[1] or part[2].strip() for part in lacking if part]
        return f"`{prog}` needs {', '.join(names) or found[1]}; `{prog} --help` says what that is."
    if found := re.match(r"(?:Unrecognized options|Unrecognized or misplaced options): (.*)", text):
        return _unknown(found[1].split(", "), re.findall(r"(?<!\S)--[\w-]+", more.partition("For full helptext")[0]), prog)
    if found := re.match(r"Error parsing \w+: (.*\.)$", text):
        return found[1]  # of settings that have refused a value themselves
    return f"{text.rstrip('.')}; `{prog} --help` says more."


def _one_of(choices: str) -> str:
    words = {choice.strip(" '\"") for choice in choices.strip(" ,").split(",")}
    *first, last = sorted(words - {"None"})  # tyro has a set, in another order in each process
    return f"{', '.join(first)} or {last}" if first else last


def _unknown(words: list[str], known: list[str], prog: str) -> str:
    word = next((word for word in words if word.startswith("-")), words[0])
    if not word.startswith("-"):
        return f"{word!r} is one word too many; give one thing, with quotation marks around words that belong together."
    near = get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.5)
    if word.partition("=")[0] in known:
        return f"{word} stands behind --, where everything is text; put options before that."
    hint = f"perhaps {near[0]} was meant" if near else f"`{prog} --help` lists them"
    if " " in word:
        hint = "a text that begins with a dash goes behind --, or after a space"
    return f"There is no option {word}; {hint}."
