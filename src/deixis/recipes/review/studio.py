"""A review that is worked on in Label Studio: sent there, and brought back."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from deixis.console import print_text
from deixis.data.formats.label_studio.regions import changed_at
from deixis.data.formats.review.read import DONE, correction_line
from deixis.errors import DataError, OptionError
from deixis.options.review.push import ReviewPullOptions, ReviewPushOptions, StudioOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.review.serve import opened_review
from deixis.review.corrected import IMAGE_KEY, MASKS, apply_annotation, label_config, task_of
from deixis.review.pictures import Pictures
from deixis.review.store import Store
from deixis.review.studio import Studio
from deixis.serving.labelling.task_images import LabelStudio

_Annotated = Mapping[str, list[tuple[int, Sequence[Any]]]]
"""By person, images of the review and the regions left in them."""


def push_review(options: ReviewPushOptions) -> int:
    """Make the review where there is none, then a project with its images, whose address is printed. Returns 0.

    Raises:
        DeixisError: options, data or the model cannot be used, or Label Studio does not take it.
    """
    studio = _studio(options)
    with opened_review(options) as store:
        if store.fact("project"):
            raise OptionError(f"--db: {store.file} is in project {store.fact('project')} already; pull it, or copy it")
        rows = store.rows(f"SELECT * FROM images i WHERE NOT {DONE} ORDER BY worth DESC, id")[: options.count]
        if not rows:
            raise DataError(f"{store.file}: every image is reviewed; nothing is left to send")
        project = studio.new_project(options.title or store.file.stem, label_config(store.names))
        pictures, tasks = Pictures(store.file.parent), []
        with ProgressBar("images sent") as progress:
            for number, row in enumerate(rows, start=1):
                place = studio.upload(project, f"{row['id']:06d}.jpg", pictures.jpeg(row))
                tasks.append(task_of(store, row, place, options.masks))
                progress(number, len(rows))
        studio.add_tasks(project, tasks)
        if options.backend:
            studio.add_backend(project, options.backend)
        # Noted once all is sent: a push that failed may be repeated, and leaves an unfinished project behind.
        with store.changing():
            for name, value in (("project", str(project)), ("masks", options.masks)):
                store.write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
    print_text(
        f"sent {len(tasks)} images to {options.url.rstrip('/')}/projects/{project}; bring corrections back with "
        f"deixis review pull {store.file} --url {options.url}"
    )
    return 0


def pull_review(options: ReviewPullOptions) -> list[Path]:
    """Bring back what people submitted; images that are finished here already stay as they are. The reviews changed.

    Raises:
        DeixisError: the review was not pushed, or Label Studio does not answer as it should.
    """
    studio, file = _studio(options), Path(options.db)
    with Store(file) as store:
        project, masks = store.fact("project"), cast(MASKS, store.fact("masks") or "brush")
    if not project.isdecimal():
        raise DataError(f"{file}: was not sent to Label Studio; deixis review push {file} does")
    found = annotations_by_person(studio.annotated_tasks(int(project)), studio.people())
    if options.annotator:
        if options.annotator not in found:
            raise OptionError(
                f"--annotator: {options.annotator!r} annotated nothing; found {', '.join(found) or 'nobody'}"
            )
        found = {options.annotator: found[options.annotator]}
    if not found:
        print_text(f"nobody has submitted an annotation in project {project} yet")
        return []
    changed = []
    for person, images in found.items():
        own = file if len(found) == 1 else _copy_for(file, person)
        with Store(own) as store:
            done = _apply(store, images, person, masks)
        print_text(f"{own}: {done} images of {person}, {len(images) - done} were reviewed before")
        print_text(correction_line(own))
        changed.append(own)
    return changed


def annotations_by_person(tasks: Sequence[Mapping[str, Any]], people: Mapping[int, str]) -> _Annotated:
    """The latest annotation of each person in each image; those that were skipped do not count.

    Raises:
        DataError: tasks that deixis did not send.
    """
    found: dict[str, dict[int, Sequence[Any]]] = defaultdict(dict)
    for task in tasks:
        image = (task.get("data") or {}).get(IMAGE_KEY)
        if type(image) is not int:
            raise DataError(f"task {task.get('id')}: was not sent by deixis review push; export the project instead")
        for one in sorted(task.get("annotations") or [], key=changed_at):
            if one.get("was_cancelled") or not isinstance(one.get("result"), list):
                continue
            by = one.get("completed_by")
            number = by.get("id") if isinstance(by, Mapping) else by
            found[people.get(number, f"user {number}")][image] = one["result"]  # type: ignore[arg-type]
    return {person: sorted(images.items()) for person, images in found.items()}


def _apply(store: Store, images: Sequence[tuple[int, Sequence[Any]]], person: str, masks: MASKS) -> int:
    done = 0
    for number, result in images:
        row = store.row("images", number)
        if row["status"] != "done":
            apply_annotation(store, row, result, person, masks)
            done += 1
    return done


def _copy_for(file: Path, person: str) -> Path:
    """A review of a person's own, made from the common one where there is none."""
    name = re.sub(r"[^\w.@-]+", "_", person)
    own = file.with_name(f"{file.stem}.{name}{file.suffix}")
    if not own.exists():
        # Copied aside, so that a person's review is there whole or not at all.
        draft = own.with_name(f".{own.name}.draft")
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as common, closing(sqlite3.connect(draft)) as copy:
            common.backup(copy)
        draft.replace(own)
    return own


def _studio(options: StudioOptions) -> Studio:
    return Studio(LabelStudio(options.url.rstrip("/"), options.api_key))
