"""A Label Studio as a client sees it: projects, uploaded pictures, tasks, annotations, people."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deixis.data.inputs.download import download
from deixis.errors import DataError
from deixis.serving.labelling.task_images import LabelStudio

_TASKS_AT_A_TIME = 50


@dataclass(frozen=True)
class Studio:
    """A server and the key to it.

    Every method raises DataError where the server does not answer as it should.
    """

    server: LabelStudio

    def new_project(self, title: str, label_config: str) -> int:
        """Make a project; its id."""
        # Label Studio takes no longer titles.
        return self._number(self._post("/api/projects/", {"title": title[:50], "label_config": label_config}), "id")

    def upload(self, project: int, name: str, content: bytes) -> str:
        """Send a picture; where tasks find it."""
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        answer = self._ask(f"/api/projects/{project}/import?commit_to_project=false", body, kind)
        ids = answer.get("file_upload_ids") if isinstance(answer, Mapping) else None
        if not isinstance(ids, list) or len(ids) != 1:
            raise DataError(f"{self.server.url}: took {name} but gave no id of it; is this Label Studio 1.8 or newer?")
        found = self._ask(f"/api/import/file-upload/{ids[0]}")
        return f"/data/{found['file'].removeprefix('/data/').lstrip('/')}"

    def add_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Import tasks with their predictions."""
        for start in range(0, len(tasks), _TASKS_AT_A_TIME):
            self._post(f"/api/projects/{project}/import", list(tasks[start : start + _TASKS_AT_A_TIME]))

    def add_backend(self, project: int, url: str) -> None:
        """Connect a model, as `deixis serve` is one, whose answers a click brings."""
        self._post("/api/ml/", {"project": project, "url": url, "title": "deixis", "is_interactive": True})

    def annotated_tasks(self, project: int) -> list[Mapping[str, Any]]:
        """The tasks that people annotated, with all annotations."""
        found = self._ask(f"/api/projects/{project}/export?exportType=JSON")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise DataError(f"{self.server.url}: exports no list of tasks from project {project}")
        return found

    def people(self) -> dict[int, str]:
        """E-mail addresses by id."""
        found = self._ask("/api/users/")
        rows = found if isinstance(found, list) else found.get("results", [])
        return {int(row["id"]): str(row.get("email") or row.get("username") or row["id"]) for row in rows}

    def _post(self, path: str, values: Any) -> Any:
        return self._ask(path, json.dumps(values).encode())

    def _ask(self, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        url = f"{self.server.url.rstrip('/')}{path}"
        headers = {**self.server.headers(), **({} if body is None else {"Content-Type": kind})}
        answer = download(url, hosts=self.server.hosts, headers=headers, body=body)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise DataError(f"{url}: answers no JSON; is {self.server.url} a Label Studio?") from error

    def _number(self, answer: Any, name: str) -> int:
        if not isinstance(answer, Mapping) or type(answer.get(name)) is not int:
            raise DataError(f"{self.server.url}: gave no {name}; is it a Label Studio?")
        return int(answer[name])
