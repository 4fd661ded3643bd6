"""A hub of model repositories on this machine, with the few routes of the real one that a download takes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = (".pt", ".safetensors", ".bin", ".msgpack", ".h5")  # in Git LFS: listed with a SHA-256, and served from elsewhere
REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOS = {
    "": "tencent/HunyuanVideo",
    "text_encoder": "xtuner/llava-llama-3-8b-v1_1-transformers",
    "text_encoder_2": "openai/clip-vit-large-patch14",
}
I2V = {**REPOS, "": "tencent/HunyuanVideo-I2V", "text_encoder_i2v": REPOS["text_encoder"]}


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub:
    """Serves `repos[repo][file]`; `fetched` has the file and the Range of every request for content."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {repo: {} for repo in REPOS.values()}
        self.fetched: list[tuple[str, str | None]] = []
        self.damaged: set[str] = set()  # files that arrive with a flipped bit
        self.cut_after: int | None = None  # bytes, after which a connection breaks once and the server then fails
        self.refusal: tuple[int, str] | None = None  # status and error code of every answer
        self.page = b""  # answers everything, as a network that wants a login does
        self.endpoint = ""

    def serve_tree(self, root: Path) -> None:
        """The files of an official tree in the repositories that they come from, with all that the real ones have besides."""
        for file in (path for path in root.rglob("*") if path.is_file()):
            folder, _, name = file.relative_to(root).as_posix().partition("/")
            path = name if folder in REPOS else f"{folder}/{name}"
            self.repos[REPOS.get(folder, REPOS[""])][path] = file.read_bytes()
        official, llava, clip = self.repos.values()
        for name, ending in (("mp_rank_00_model_states_fp8", b"8"), ("mp_rank_00_model_states_fp8_map", b"map")):
            official[f"hunyuan-video-t2v-720p/transformers/{name}.pt"] = b"PK" + ending
        llava["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "model.safetensors"}}).encode()
        clip |= {"vocab.json": b"{}", "merges.txt": b"#version"}
        clip |= dict.fromkeys(("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"), b"other formats")
        for repo in self.repos.values():
            repo |= dict.fromkeys((".gitattributes", "README.md", "LICENSE", "preprocessor_config.json", "assets/logo.png"), b"not needed")

    def serve_i2v_tree(self, root: Path) -> None:
        """The files of the image-to-video model's tree, with a LoRA and what is not needed."""
        self.repos = {repo: {"README.md": b"not needed"} for repo in I2V.values()}
        for file in (path for path in root.rglob("*") if path.is_file()):
            folder, _, name = file.relative_to(root).as_posix().partition("/")
            self.repos[I2V.get(folder, I2V[""])][name if folder in I2V else f"{folder}/{name}"] = file.read_bytes()
        self.repos[I2V[""]]["hunyuan-video-i2v-720p/lora/embrace_kohaya_weights.safetensors"] = b"lora"
        self.repos[I2V["text_encoder"]]["model.safetensors.index.json"] = b'{"weight_map": {"a": "model.safetensors"}}'
        self.repos[I2V["text_encoder_2"]] |= {"vocab.json": b"{}", "merges.txt": b"#version"}

    def listing(self, repo: str) -> bytes:
        siblings = []
        for name, content in self.repos[repo].items():
            entry: dict = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
            if name.endswith(LARGE):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return json.dumps({"id": repo, "modelId": repo, "sha": REVISION, "siblings": siblings}).encode()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if hub.page:
                self.answer(200, hub.page)
            elif hub.refusal is not None:
                self.answer(hub.refusal[0], b"", {"X-Error-Code": hub.refusal[1]})
            elif listing := re.fullmatch(r"/api/models/(.+)", path):
                self.answer(200, hub.listing(listing[1]))
            elif file := re.fullmatch(rf"/(\w+/[\w-]+)/resolve/{REVISION}/(.+)", path):
                if file[2].endswith(LARGE):
                    self.answer(302, b"", {"Location": f"/elsewhere/{file[1]}/{file[2]}"})
                else:
                    self.content(file[1], file[2])
            elif file := re.fullmatch(r"/elsewhere/(\w+/[\w-]+)/(.+)", path):
                self.content(file[1], file[2])
            else:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

        def content(self, repo: str, name: str) -> None:
            content, wanted = hub.repos[repo][name], self.headers.get("Range")
            hub.fetched.append((name, wanted))
            if name in hub.damaged:
                content = bytes([content[0] ^ 1]) + content[1:]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if wanted else {}
            if name.endswith(LARGE) and hub.cut_after is not None:
                part, hub.cut_after, hub.refusal = content[start : start + hub.cut_after], None, (503, "")
                return self.answer(200, part, {"Content-Length": str(len(content) - start)})
            self.answer(206 if wanted else 200, content[start:], headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[FakeHub]:
    hub = FakeHub()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
