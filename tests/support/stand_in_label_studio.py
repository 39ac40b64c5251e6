"""Label Studio's API as far as reviews use it, in memory: tokens, projects, uploads, tasks, exports.

It refuses what the real one refuses: requests without a token, configurations that are no XML, tasks without the
configuration's data, regions of controls or labels that it does not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from xml.etree import ElementTree

REFRESH = "aaa.bbb.ccc"
"""A personal access token, which buys ACCESS."""
ACCESS, LEGACY = "access", "0123456789abcdef"
PEOPLE = {1: "ann@example.org", 2: "bob@example.org"}


class StandIn:
    """What the server holds.

    Attributes:
        projects: by id, their configuration and tasks.
        uploads: by id, the project, the name and the content of a file.
        backends: what was connected.
    """

    def __init__(self) -> None:
        self.url = ""
        self.projects: dict[int, dict[str, Any]] = {}
        self.uploads: dict[int, tuple[int, str, bytes]] = {}
        self.backends: list[dict[str, Any]] = []

    def annotate(self, project: int, place: int, person: int, change: Any = None, **more: Any) -> None:
        """A person starts from the prediction of a task, as the editor does, changes the regions and submits."""
        task = self.projects[project]["tasks"][place]
        result = json.loads(json.dumps(task["predictions"][0]["result"]))
        annotations = task["annotations"]
        number = 100 * place + len(annotations) + 1
        annotations.append(
            {
                "id": number,
                "completed_by": person,
                "result": result if change is None else change(result),
                "was_cancelled": False,
                "ground_truth": False,
                "updated_at": f"2026-11-29T10:00:{number % 60:02d}Z",
                **more,
            }
        )

    def answer(self, method: str, path: str, key: str, kind: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        if (method, path) == ("POST", "/api/token/refresh/"):
            return (200, {"access": ACCESS}) if json.loads(body) == {"refresh": REFRESH} else (401, {})
        if key not in (f"Bearer {ACCESS}", f"Token {LEGACY}"):
            return 401, {"detail": "Authentication credentials were not provided."}
        if (method, path) == ("POST", "/api/projects/"):
            return self._project(json.loads(body))
        if (method, path) == ("GET", "/api/users/"):
            return 200, [{"id": number, "email": email, "username": email} for number, email in PEOPLE.items()]
        if (method, path) == ("POST", "/api/ml/"):
            self.backends.append(json.loads(body))
            return 201, {"id": len(self.backends)}
        if found := re.fullmatch(r"/api/import/file-upload/(\d+)", path):
            project, name, _ = self.uploads[int(found[1])]
            return 200, {"id": int(found[1]), "file": f"upload/{project}/{name}"}
        if found := re.fullmatch(r"/api/projects/(\d+)/export\?exportType=JSON", path):
            return 200, [task for task in self.projects[int(found[1])]["tasks"] if task["annotations"]]
        if found := re.fullmatch(r"/api/projects/(\d+)/import(\?commit_to_project=false)?", path):
            project = int(found[1])
            return self._upload(project, kind, body) if found[2] else self._tasks(project, json.loads(body))
        return 404, {"detail": "Not found."}

    def _project(self, asked: dict[str, Any]) -> tuple[int, Any]:
        root = ElementTree.fromstring(asked["label_config"])
        if len(asked["title"]) > 50:
            return 400, {"validation_errors": {"title": ["too long"]}}
        number = len(self.projects) + 1
        controls = {tag.get("name"): [one.get("value") for one in tag.iter("Label")] for tag in root if len(tag)}
        keys = [tag.get("value", "")[1:] for tag in root.iter("Image")]
        self.projects[number] = {"title": asked["title"], "controls": controls, "keys": keys, "tasks": []}
        return 201, {"id": number, "title": asked["title"]}

    def _upload(self, project: int, kind: str, body: bytes) -> tuple[int, Any]:
        boundary = kind.partition("boundary=")[2].encode()
        head, _, content = body.split(b"--" + boundary)[1].partition(b"\r\n\r\n")
        named = re.search(rb'name="file"; filename="([^"]+)"', head)
        assert named is not None, head
        number = len(self.uploads) + 1
        self.uploads[number] = (project, f"{number:08x}-{named[1].decode()}", content.removesuffix(b"\r\n"))
        return 201, {"task_count": 1, "file_upload_ids": [number], "found_formats": [".jpg"]}

    def _tasks(self, project: int, asked: list[dict[str, Any]]) -> tuple[int, Any]:
        of = self.projects[project]
        for task in asked:
            if any(key not in task["data"] for key in of["keys"]):
                return 400, {"detail": "Validation error", "validation_errors": {"data": ["key is missing"]}}
            for region in task["predictions"][0]["result"]:
                labels = region["value"][region["type"]]
                if not set(labels) <= set(of["controls"].get(region["from_name"], ())):
                    return 400, {"detail": f"no control for {region['from_name']} {labels}"}
        for task in asked:
            of["tasks"].append({"id": len(of["tasks"]) + 1, "annotations": [], **task})
        return 201, {"task_count": len(asked)}


@contextmanager
def label_studio() -> Iterator[StandIn]:
    """A stand-in that listens on a port of this machine."""
    studio = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key, kind = self.headers.get("Authorization", ""), self.headers.get("Content-Type", "")
            status, values = studio.answer(self.command, self.path, key, kind, body)
            content = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    studio.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield studio
    finally:
        server.shutdown()
        server.server_close()
