"""What jobs do: a task on every image of a folder, or on every frame of a film, one line of JSON each."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

from deixis.data.inputs.find import expand
from deixis.data.pixels.frames import is_video_file
from deixis.errors import DataError, OptionError
from deixis.serving.answers import Answer, Item
from deixis.serving.batches import Batches
from deixis.serving.films import FILM, FilmLimits, Row, followed, in_turn, open_film, write_film
from deixis.serving.images import checked_pixels
from deixis.serving.jobs.queue import RESULT, Job
from deixis.serving.models import Models
from deixis.serving.requests import Asked, AskedJob, AskedTrack
from deixis.serving.tasks import TASKS

DRAWN = "drawn.mp4"
_NO_FILE = "-"


class Work:
    """Does jobs with the server's models and queue.

    Args:
        folders: by name, those that may be read.
        max_pixels: of an image or frame.
    """

    def __init__(self, models: Models, batches: Batches, folders: Mapping[str, Path], max_pixels: int) -> None:
        self.models, self.batches, self.folders, self.max_pixels = models, batches, folders, max_pixels

    def check(self, asked: AskedJob) -> None:
        """Raises DeixisError or ValidationError for a job that could not be done."""
        if asked.task == "track":
            form = _track_form(asked)
            self.models.name("segmenter" if form.phrases else "detector", form.model)
            if bool(asked.path) == bool(asked.video):
                raise OptionError("path, video: expected one of them, a film to track in")
        else:
            _picture_form(asked)
            if asked.video or not asked.path:
                raise OptionError(f"path: is required for {asked.task}, which works on a folder as ROOT/PATH")
        if asked.path:
            place = place_below(self.folders, asked.path)
            if asked.task == "track" and not (place.is_file() and is_video_file(place)):
                raise OptionError(f"path: {asked.path!r} is no video file")

    def run(self, job: Job, folder: Path) -> None:
        """Do a job: its lines of results go to `result.jsonl`, and a drawn film beside it.

        Raises:
            DeixisError: it cannot be done.
        """
        asked = AskedJob.model_validate(job.asked)
        rows = self._film(asked, job, folder) if asked.task == "track" else self._images(asked, job)
        with (folder / RESULT).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                # Results can be fetched while the job runs.
                file.flush()
                job.done += 1

    def _film(self, asked: AskedJob, job: Job, folder: Path) -> Iterator[Row]:
        form = _track_form(asked)
        path = place_below(self.folders, asked.path) if asked.path else folder / FILM
        frames = open_film(path, FilmLimits(None, self.max_pixels))
        job.total = len(frames)
        found = in_turn(self.batches, followed(self.models, form, frames), job.stop)
        if form.answer == "film":
            yield from write_film(folder / DRAWN, frames.rate, found)
        else:
            yield from (row for row, _ in found)

    def _images(self, asked: AskedJob, job: Job) -> Iterator[Row]:
        root, place = self.folders[asked.path.partition("/")[0]].resolve(), place_below(self.folders, asked.path)
        files = expand(place)
        job.total = len(files)
        waiting: deque[tuple[str, Future[Answer] | str]] = deque()
        for file in files:
            if job.stop.is_set():
                break
            waiting.append((file.relative_to(root).as_posix(), self._asked_about(asked, file, root)))
            # As many as one batch holds: all of them have their pixels in memory.
            if len(waiting) >= self.batches.max_batch:
                yield _row(*waiting.popleft())
        while waiting:
            yield _row(*waiting.popleft())

    def _asked_about(self, asked: AskedJob, file: Path, root: Path) -> Future[Answer] | str:
        """The answer to come about an image, or why it cannot be read."""
        form = _picture_form(asked)
        if not is_below(file, root):
            return "is a link that leads out of the served folder"
        try:
            pixels = checked_pixels(file.name, file.read_bytes(), self.max_pixels)
        except (DataError, OSError) as error:
            return str(error)
        question, item = TASKS[asked.task][1](form, self.models, Item(pixels))
        return self.batches.ask(question, item, limited=False)


def _row(name: str, answer: Future[Answer] | str) -> Row:
    return {"file": name, "error": answer} if isinstance(answer, str) else {"file": name, **answer.result().values}


def _picture_form(asked: AskedJob) -> Asked:
    return TASKS[asked.task][0].model_validate({**(asked.model_extra or {}), "image": _NO_FILE})


def _track_form(asked: AskedJob) -> AskedTrack:
    return AskedTrack.model_validate({**(asked.model_extra or {}), "video": _NO_FILE})


def place_below(folders: Mapping[str, Path], path: str) -> Path:
    """The place that ROOT/PATH names, links followed.

    Args:
        folders: by name, those that may be read.

    Raises:
        OptionError: no such root, nothing there, or a place outside of the root; one message, so that nothing is
            learnt of what is there.
    """
    name, _, rest = path.partition("/")
    if name not in folders:
        raise OptionError(f"path: no folder {name[:100]!r} is served; served: {', '.join(folders) or 'none'}")
    root = folders[name].resolve()
    try:
        place = (root / rest).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # nothing there, a zero byte, a circle of links
        place = None
    if place is None or not is_below(place, root):
        raise OptionError(f"path: nothing at {path[:200]!r} below the folder {name!r}")
    return place


def is_below(place: Path, root: Path) -> bool:
    """Whether a place, links followed, is a folder or in it."""
    try:
        return place.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False
