"""Jobs on folders and films: progress, cancelling, what is kept, what a stop leaves, and no way out of the folders."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from stand_in_server import Server, content, film

from deixis.errors import DataError
from deixis.serving.jobs.queue import Job, Jobs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "may").mkdir(parents=True)
    for number in range(3):
        (root / "may" / f"{number}.png").write_bytes(content(20 + number, 10))
    (root / "may" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "secret.png").write_bytes(content())
    film(root / "walk.mp4", 5)
    return root


@pytest.fixture
def server(photos: Path) -> Iterator[Server]:
    one = Server(folders={"photos": photos}, max_jobs=2)
    with one.client:
        yield one


def begun(server: Server, **asked: Any) -> str:
    answer = server.client.post("/v1/jobs", json=asked)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def ended(server: Server, job: str) -> dict[str, Any]:
    while (found := server.client.get(f"/v1/jobs/{job}").json())["finished"] is None:
        pass
    return dict(found)


def lines(server: Server, job: str) -> list[dict[str, Any]]:
    answer = server.client.get(f"/v1/jobs/{job}/result")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_folder_is_worked_on_image_by_image_and_a_broken_one_is_a_line_of_its_own(server: Server) -> None:
    job = begun(server, task="detect", path="photos/may", names=["cat"], threshold=0.6)
    found = ended(server, job)
    assert {key: found[key] for key in ("state", "done", "total", "error", "task", "path")} == {
        "state": "done",
        "done": 4,
        "total": 4,
        "error": "",
        "task": "detect",
        "path": "photos/may",
    }
    rows = lines(server, job)
    assert [row["file"] for row in rows] == ["may/0.png", "may/1.png", "may/2.png", "may/broken.png"]
    assert [row["image"]["width"] for row in rows[:3]] == [20, 21, 22]
    assert rows[0]["objects"] == [{"label": "cat", "score": 0.6, "box_xyxy_px": [0, 0, 10, 10]}]
    assert "cannot decode image" in rows[3]["error"]
    assert [one["id"] for one in server.client.get("/v1/jobs").json()["jobs"]] == [job]
    assert server.client.delete(f"/v1/jobs/{job}").status_code == 200, "forgotten, with its results"
    assert server.client.get(f"/v1/jobs/{job}").status_code == 404
    assert not list(server.app.state.serving.jobs.folder.glob("*/"))


def test_a_film_is_tracked_from_the_folder_or_as_it_is_sent_and_drawn(server: Server, photos: Path) -> None:
    job = begun(server, task="track", path="photos/walk.mp4", names=["cat"])
    assert (ended(server, job)["state"], len(lines(server, job))) == ("done", 5)
    assert lines(server, job)[4]["objects"][0]["track_id"] == 1
    assert server.client.get(f"/v1/jobs/{job}/film").status_code == 404, "nothing was to be drawn"
    sent = base64.b64encode((photos / "walk.mp4").read_bytes()).decode()
    drawn = begun(server, task="track", video=sent, answer="film")
    assert ended(server, drawn)["state"] == "done"
    assert server.client.get(f"/v1/jobs/{drawn}/film").content[4:8] == b"ftyp"


def test_a_job_is_cancelled_and_what_waits_is_bounded(server: Server) -> None:
    server.detector.gate.clear()
    server.detector.begun.clear()
    first = begun(server, task="detect", path="photos/may")
    server.detector.begun.wait(10)
    waiting = [begun(server, task="detect", path="photos/may") for _ in range(2)]
    full = server.client.post("/v1/jobs", json={"task": "detect", "path": "photos/may"})
    assert (full.status_code, full.headers["retry-after"]) == (503, "30")
    assert server.client.delete(f"/v1/jobs/{waiting[0]}").json()["state"] == "cancelled"
    server.client.delete(f"/v1/jobs/{first}")
    server.detector.gate.set()
    assert ended(server, first)["state"] == "cancelled"
    assert ended(server, waiting[1])["state"] == "done"


@pytest.mark.parametrize(
    "path",
    [
        *("", "photos/../secret.png", "photos//etc/passwd", "photos/%2e%2e/secret.png", "../secret.png", "/etc/passwd"),
        *("photos/may/../../secret.png", "photos/absent", "photos/link", "photos/\x00", "photos/" + 3000 * "a/", "x/y"),
    ],
)
def test_nothing_outside_of_the_folders_is_read(server: Server, photos: Path, path: str) -> None:
    (photos / "link").symlink_to(photos.parent)
    answer = server.client.post("/v1/jobs", json={"task": "detect", "path": path})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("path")
    assert "secret" not in answer.json()["error"] or path in answer.json()["error"], (
        "nothing is learnt of what is there"
    )


def test_a_link_among_the_images_that_leads_out_is_not_followed(server: Server, photos: Path) -> None:
    (photos / "may" / "z.png").symlink_to(photos.parent / "secret.png")
    job = begun(server, task="detect", path="photos/may")
    assert ended(server, job)["done"] == 5
    assert lines(server, job)[4] == {"file": "may/z.png", "error": "is a link that leads out of the served folder"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"task": "dream", "path": "photos"}, "task: Input should be"),
        ({"task": "detect", "path": "photos", "nmaes": ["a"]}, "nmaes: Extra inputs are not permitted"),
        ({"task": "detect", "video": "AAAA"}, "path: is required for detect"),
        ({"task": "track"}, "path, video: expected one of them"),
        ({"task": "track", "path": "photos/may/0.png"}, "path: 'photos/may/0.png' is no video file"),
        ({"task": "track", "path": "photos/walk.mp4", "model": "x"}, "model: no detector 'x' is served"),
    ],
)
def test_what_could_not_be_done_does_not_wait(server: Server, asked: Any, said: str) -> None:
    answer = server.client.post("/v1/jobs", json=asked)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)
    assert server.client.get("/v1/jobs").json() == {"jobs": []}


@pytest.mark.parametrize("name", ["0" * 16, "..", "%2e%2e%2f%2e%2e", "a/../b"])
def test_an_id_is_no_path(server: Server, name: str) -> None:
    for path in (f"/v1/jobs/{name}", f"/v1/jobs/{name}/result"):
        assert server.client.get(path).status_code in (200, 404)
        assert "root:" not in server.client.get(path).text
    assert server.client.delete(f"/v1/jobs/{name}").status_code in (404, 405)


def test_a_question_that_fails_ends_its_job_and_not_the_next(server: Server) -> None:
    job = begun(server, task="detect", path="photos/may", names=["unheard of"])
    found = ended(server, job)
    assert (found["state"], found["error"]) == ("failed", "the name 'unheard of' is too long")
    assert ended(server, begun(server, task="detect", path="photos/may"))["state"] == "done"


def test_ended_jobs_are_kept_up_to_a_number_and_for_a_time(tmp_path: Path) -> None:
    jobs = Jobs(lambda job, folder: None, tmp_path, keep=2, keep_s=1000)
    jobs.start()
    made = [jobs.add({"task": "detect"}) for _ in range(4)]
    while not all(job.over for job in made):
        pass
    assert [job.id for job in jobs.all()] == [job.id for job in made[2:]]
    made[2].finished = 0.0
    assert [job.id for job in jobs.all()] == [made[3].id]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [made[3].id]
    jobs.close(10)


def test_a_stop_lets_a_job_end_and_the_next_server_goes_on_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # they would find the wrong types below
    seen: list[str] = []

    def work(job: Job, folder: Path) -> None:
        seen.append(job.asked["task"])
        if job.asked["task"] == "long":
            job.stop.wait(10)

    jobs = Jobs(work, tmp_path)
    jobs.start()
    long, short = jobs.add({"task": "long"}), jobs.add({"task": "short"})
    while not seen:
        pass
    with pytest.raises(DataError, match="another server keeps its jobs here"):
        Jobs(work, tmp_path).start()
    jobs.close(0.01)
    assert (long.state, short.state, seen) == ("waiting", "waiting", ["long"])
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "job.json").write_text('{"id": "../..", "asked": {}}')
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "job.json").write_text("{")
    sound = {"id": "other", "asked": {}, "state": "done"}
    for number, change in enumerate(({"created": "long ago"}, {"created": None}, {"finished": []}, {"asked": 3})):
        (tmp_path / f"other{number}").mkdir()
        values = {**sound, "id": f"other{number}", **change}
        (tmp_path / f"other{number}" / "job.json").write_text(json.dumps(values))
    later = Jobs(lambda job, folder: seen.append(job.asked["task"]), tmp_path)
    later.start()
    while not all(job.over for job in later.all()):
        pass
    later.close(10)
    assert seen == ["long", "long", "short"]
    assert [job.id for job in later.all()] == [long.id, short.id]


def test_a_stop_with_time_finishes_what_runs(server: Server) -> None:
    server.detector.gate.clear()
    server.detector.begun.clear()
    job = begun(server, task="detect", path="photos/may")
    jobs = server.app.state.serving.jobs
    server.detector.begun.wait(10)
    found = jobs.find(job)
    server.detector.gate.set()
    jobs.close(10)
    assert (found.state, found.done) == ("done", 4)
    assert server.client.post("/v1/jobs", json={"task": "detect", "path": "photos/may"}).status_code == 503


def test_two_servers_after_one_another_share_a_folder_of_jobs(tmp_path: Path) -> None:
    for _ in range(2):  # the lock is taken and given back by different threads
        with Server(jobs_folder=tmp_path).client as client:
            assert client.get("/v1/jobs").json() == {"jobs": []}
