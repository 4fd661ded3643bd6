"""The way back from settings to the flags that say them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from hunyuan_video.config import BY_ENVIRONMENT


def flags_of(settings: Any, plain: Any = None) -> list[str]:
    """Of what is not as in `plain`, or else its class's default, but for what goes by the environment. Settings inside settings are flat,
    as they are on the command line."""
    plain = type(settings)() if plain is None else plain
    found: list[str] = []
    for each in fields(settings):
        if each.metadata == BY_ENVIRONMENT:
            continue
        value, usual, flag = getattr(settings, each.name), getattr(plain, each.name), each.name.replace("_", "-")
        if is_dataclass(value):
            found += flags_of(value, usual)
        elif value == usual:
            continue
        elif isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            for one in value if isinstance(value, tuple) else (value,):
                found += [f"--{flag}", str(one)]
    return found
