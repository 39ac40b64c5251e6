"""Pushing a model to a stand-in of the hub: what is sent, what is not, and what is said where it cannot be."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from deixis.errors import ModelError, OptionError
from deixis.models.hub.base_models import base_name, card_head, licence_of
from deixis.models.hub.push import files_to_send, push_model
from deixis.models.model_card import write_card
from deixis.models.model_record import ModelRecord, write_record
from deixis.options.model_push import ModelPushOptions
from deixis.recipes.model.push import push

TOKEN = "hf_secretsecretsecretsecretsecret"


class Hub(BaseHTTPRequestHandler):
    """The calls of huggingface_hub's create_repo and upload_folder."""

    received: dict[str, bytes]
    paths: list[str]
    refuses: bool

    def log_message(self, format: str, *args: object) -> None: ...

    def answer(self, values: object, status: int = 200) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        if self.refuses:
            self.answer({"error": f"no right for {TOKEN}"}, 403)
        else:
            self.answer({"id": "me/model", "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:
        self.received[self.path.removeprefix("/put/")] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        text = self.body()
        self.paths.append(self.path)
        address = f"http://{self.headers['Host']}"
        if self.refuses:
            self.answer({"error": f"no right for {TOKEN}"}, 403)
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{address}/me/model"})
        elif "/preupload/" in self.path:
            files = json.loads(text)["files"]
            kinds = {True: "lfs", False: "regular"}
            uploads = [
                {"path": f["path"], "uploadMode": kinds[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                for f in files
            ]
            self.answer({"files": uploads})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(text)["objects"]
            actions = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{address}/put/{o['oid']}"}}}
                for o in objects
            ]
            self.answer({"transfer": "basic", "objects": actions})
        elif "/commit/" in self.path:
            for line in text.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.received[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    self.received[entry["value"]["path"]] = self.received.pop(entry["value"]["oid"])
            self.answer({"commitUrl": f"{address}/me/model/commit/0", "commitOid": "0" * 40, "pullRequestUrl": None})
        else:
            self.answer({"errors": [], "warnings": []})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Hub]]]:
    """The stand-in's address, and the class that keeps what it received."""
    handler = type("Handler", (Hub,), {"received": {}, "paths": [], "refuses": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, and much beside it."""
    model = tmp_path / "model"
    for name in ("vlm", "logs", "checkpoints", ".git"):
        (model / name).mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "mm-grounding-dino"}')
    (model / "deixis.json").write_text('{"version": 1}')
    (model / "README.md").write_text("---\nlicense: mit\n---\n# model\n")
    (model / "model.safetensors").write_bytes(b"weights" * 100)
    (model / "vlm" / "config.json").write_text("{}")
    (tmp_path / "elsewhere.json").write_text("private")
    for name in ("training.pt", ".env", "logs/run.log", "checkpoints/config.json", "notes.txt", ".git/config"):
        (model / name).write_text("private")
    (model / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    return model


SENT = ["README.md", "config.json", "deixis.json", "model.safetensors", "vlm/config.json"]


def test_only_a_models_own_files_are_sent(folder: Path, hub: tuple[str, type[Hub]]) -> None:
    address, handler = hub
    files = files_to_send(folder)
    assert [path.as_posix() for path in files] == SENT
    assert push_model(folder, "me/model", files, endpoint=address).endswith("/me/model")
    assert sorted(handler.received) == SENT
    assert handler.received["model.safetensors"] == b"weights" * 100
    assert handler.received["config.json"] == (folder / "config.json").read_bytes()


def test_a_refusal_is_one_line_without_the_token(folder: Path, hub: tuple[str, type[Hub]]) -> None:
    address, handler = hub
    handler.refuses = True
    with pytest.raises(ModelError, match=r"me/model: the hub refuses \(403\): log in") as raised:
        push_model(folder, "me/model", files_to_send(folder), endpoint=address)
    assert TOKEN not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="needs a network, and HF_HUB_OFFLINE is set"):
        push_model(folder, "me/model", files_to_send(folder))


def test_the_command_lists_what_it_would_send(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(ModelPushOptions(model=str(folder), to="me/model", dry_run=True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == SENT
    assert lines[-1].startswith("would send 5 files")
    assert "private" not in "".join(lines)


@pytest.mark.parametrize("to", ["model", "a/b/c", "a b/c", "https://huggingface.co/a/b"])
def test_a_repository_has_an_owner_and_a_name(to: str, folder: Path) -> None:
    with pytest.raises(OptionError, match="--to: expected OWNER/NAME"):
        push(ModelPushOptions(model=str(folder), to=to))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder of a model"):
        files_to_send(tmp_path)


def test_names_and_licences_of_bases(folder: Path) -> None:
    assert base_name("builtin") == "builtin"
    assert base_name(str(folder)) == "model"
    assert base_name("IDEA-Research/grounding-dino-tiny") == "IDEA-Research/grounding-dino-tiny"
    assert licence_of(str(folder)) == "mit"
    teacher = folder.parent / "run" / "teachers" / "one"
    shutil.copytree(folder, teacher)
    assert licence_of(str(folder.parent / "run")) == "mit"
    shutil.copytree(folder, teacher.with_name("other"))
    assert licence_of(str(folder.parent / "run")) == "", "a run with two models"
    assert licence_of("IDEA-Research/grounding-dino-tiny") == "apache-2.0"
    assert licence_of("somebody/something") == ""
    (folder / "README.md").write_text("---\n[\n---\n")
    assert licence_of(str(folder)) == ""


@pytest.mark.parametrize(
    ("base", "is_hub_id"),
    [("somebody/model", True), ("runs/best", False), ("runs/x/best", False), ("../model", False), ("builtin", False)],
)
def test_a_card_names_bases_and_data_of_the_hub_alone(
    base: str, is_hub_id: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/best").mkdir(parents=True)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    write_record(adapter, ModelRecord("detector", training={"data": [base]}))
    write_card(adapter)
    head = card_head(adapter / "README.md")
    assert head.get("base_model") == (base if is_hub_id else None)
    assert head.get("datasets") == ([base] if is_hub_id else None)
    assert f"adapter on {base}, a" in (adapter / "README.md").read_text()
    assert base_name(base) == (base if is_hub_id else Path(base).name)
