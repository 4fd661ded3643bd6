"""Runs a workflow as ComfyUI's page saves it: nodes with the values of their widgets, and links between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def widgets(schema: Any) -> list[Any]:
    """Those inputs of a node that have a field on it."""
    return [each for each in schema.inputs if hasattr(each, "socketless")]


def values(node: dict[str, Any], schema: Any) -> dict[str, Any]:
    """What stands in the fields. A seed is followed by what becomes of it after a run."""
    left = iter(node["widgets_values"])
    given = {}
    for widget in widgets(schema):
        given[widget.id] = next(left)
        if getattr(widget, "control_after_generate", None):
            assert next(left) in ("fixed", "randomize", "increment", "decrement")
    assert not [*left]
    return given


def as_prompt(comfy: Any, workflow: dict[str, Any], **instead: Any) -> dict[str, dict[str, Any]]:
    """The same as ComfyUI's API takes it; fields that are open, 0, have the values that are named in `instead`."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        given = values(node, comfy.schema(node["type"]))
        given |= {name: value for name, value in instead.items() if given.get(name) == 0}
        given |= {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return prompt


def run(comfy: Any, prompt: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The outputs of all nodes, by their numbers."""
    done: dict[str, tuple[Any, ...]] = {}
    while len(done) < len(prompt):
        ready = [number for number in prompt if number not in done and all(way[0] in done for way in ways(prompt[number]))]
        assert ready, f"nodes wait for each other: {sorted(prompt.keys() - done.keys())}"
        for number in ready:
            inputs = prompt[number]["inputs"].items()
            given = {name: done[value[0]][value[1]] if isinstance(value, list) else value for name, value in inputs}
            done[number] = comfy.runtime.execute_node(prompt[number]["class_type"], **given)
    return done


def ways(node: dict[str, Any]) -> list[list[Any]]:
    """From where a node is linked."""
    return [value for value in node["inputs"].values() if isinstance(value, list)]
