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


def run(comfy: Any, workflow: dict[str, Any], **instead: Any) -> dict[int, tuple[Any, ...]]:
    """The outputs of all nodes, by their numbers; fields that are open, 0, have the values that are named in `instead`."""
    links = {link[0]: link for link in workflow["links"]}
    left, done = {node["id"]: node for node in workflow["nodes"]}, {}
    while left:
        ready = [node for node in left.values() if all(links[way][1] in done for way in ways(node))]
        assert ready, f"nodes wait for each other: {sorted(left)}"
        for node in ready:
            given = values(node, comfy.schema(node["type"]))
            given |= {name: value for name, value in instead.items() if given.get(name) == 0}
            linked = {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
            given |= {name: done[link[1]][link[2]] for name, link in linked.items()}
            done[node["id"]] = comfy.runtime.execute_node(node["type"], **given)
            del left[node["id"]]
    return done


def ways(node: dict[str, Any]) -> list[int]:
    """The links into a node."""
    return [entry["link"] for entry in node["inputs"] if entry["link"] is not None]
