"""What comes with the nodes: workflows that fit them and run, and help in two languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import workflows
from PIL import Image

from hunyuan_video.video import read_metadata

PACK = Path(__file__).parents[2] / "comfyui"
EXAMPLES = PACK / "example_workflows"
NAMES = ["one_node", "picture_to_video", "text_to_video", "video_to_video"]
LANGUAGES = ["en", "zh"]


def test_each_workflow_has_its_picture():
    assert sorted(path.name for path in EXAMPLES.iterdir()) == sorted(f"{name}.{kind}" for name in NAMES for kind in ("jpg", "json"))
    for name in NAMES:
        with Image.open(EXAMPLES / f"{name}.jpg") as image:
            assert image.format == "JPEG"


@pytest.mark.parametrize("name", NAMES)
def test_links_join_what_fits_together(comfy, name):
    workflow = workflows.read(EXAMPLES / f"{name}.json")
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, start, out, end, into, kind in workflow["links"]:
        source, target = comfy.schema(nodes[start]["type"]).outputs[out], nodes[end]["inputs"][into]
        wanted = next(each for each in comfy.schema(nodes[end]["type"]).inputs if each.id == target["name"])
        assert target["link"] == number and number in nodes[start]["outputs"][out]["links"]
        assert kind == source.get_io_type() and kind in wanted.get_io_type().split(",")
    inputs = {(node["id"], each["name"]): each["link"] for node in nodes.values() for each in node["inputs"]}
    needed = {(node["id"], each.id) for node in nodes.values() for each in comfy.schema(node["type"]).inputs if not each.optional}
    assert all(inputs.get(each, 0) is not None for each in needed)


@pytest.mark.parametrize("name", NAMES)
def test_workflows_run(comfy, name):
    """With small values in place of those that are open."""
    _saves(comfy, name, width=64, height=64, num_frames=5, num_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_workflows_run_as_they_are(comfy, name):
    _saves(comfy, name)


def _saves(comfy, name: str, **instead: int) -> None:
    prompt = workflows.as_prompt(comfy, workflows.read(EXAMPLES / f"{name}.json"), **instead)
    done = workflows.run(comfy, prompt)
    (path,) = next(done[number] for number, node in prompt.items() if node["class_type"] == "HunyuanVideoSave")
    made = read_metadata(path)
    assert made["prompt"] == [node["inputs"]["prompt"] for node in prompt.values() if "prompt" in node["inputs"]][-1]
    assert made["frames_sha256"]


# --- Help ---


def test_every_node_has_help_in_both_languages(comfy):
    expected = {f"{node}/{language}.md" for node in comfy.nodes for language in LANGUAGES}
    docs = PACK / comfy.pack.WEB_DIRECTORY / "docs"
    assert {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} == expected


def test_help_names_every_field(comfy):
    for node in comfy.nodes:
        fields = {each.id for each in comfy.schema(node).inputs} - {"model", "request", "latent"}
        if node == "HunyuanVideoGenerate":
            continue  # whose fields are those of other nodes, as its help says
        for language in LANGUAGES:
            text = (PACK / "web" / "docs" / node / f"{language}.md").read_text(encoding="utf-8")
            assert not (missing := {field for field in fields if not re.search(rf"[*`]{field}[*`]", text)}), (node, language, missing)


def test_english_names_are_the_schemas(comfy):
    assert _locale("en") == {node: _of_schema(comfy.schema(node)) for node in comfy.nodes}


def test_chinese_names_cover_the_same_and_are_chinese(comfy):
    english, chinese = _locale("en"), _locale("zh")
    assert [*_keys(chinese)] == [*_keys(english)]
    for words in (node[part] for node in chinese.values() for part in ("display_name", "description")):
        assert re.search(r"[\u4e00-\u9fff]", words)


@pytest.mark.parametrize("code", LANGUAGES)
def test_locales_are_where_comfyui_looks(code):
    assert [path.name for path in (PACK / "locales" / code).iterdir()] == ["nodeDefs.json"]


def _locale(code: str) -> dict:
    return json.loads((PACK / "locales" / code / "nodeDefs.json").read_text(encoding="utf-8"))


def _of_schema(schema) -> dict:
    def named(name: str, tooltip: str | None) -> dict:
        return {"name": name} | ({"tooltip": tooltip} if tooltip else {})

    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {each.id: named(each.id, each.tooltip) for each in schema.inputs},
        "outputs": {str(number): named(each.display_name, None) for number, each in enumerate(schema.outputs)},
    }


def _keys(node, path: tuple = ()) -> list:
    """The path of every text."""
    return [found for name, each in node.items() for found in _keys(each, (*path, name))] if isinstance(node, dict) else [path]
