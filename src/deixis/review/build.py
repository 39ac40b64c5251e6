"""A review made from a data set and, where there is a model, its predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from deixis.data.formats.zipped import is_unpacked
from deixis.data.pixels.images import load
from deixis.data.sets.embedded import is_embedded, record_of
from deixis.errors import DataError
from deixis.records import Dataset, Rle, Sample
from deixis.review.predicted import Predictions, add_predictions, rank
from deixis.review.queue import Worth, novelties, thumbnail
from deixis.review.store import Store, insert_object, new_store

_THUMB_PX = 64


def build_review(
    file: Path,
    dataset: Dataset,
    *,
    source: str,
    labelled: bool = True,
    predictions: Predictions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """A new review of every image of a data set.

    Labels become objects to judge. A detection that shows a label gives it its score; others from the threshold on
    become objects too. Pictures that are no files are written into a folder beside the review.

    Args:
        source: what the data is, for people to read.
        labelled: that an image has no label means that there is nothing.

    Raises:
        DataError: the file exists or cannot be written, or an image cannot be read.
    """
    model = "" if predictions is None else predictions.model
    if file.exists():
        raise DataError(f"{file}: exists; give another --db, or open it with deixis review serve {file}")
    draft = file.with_name(f".{file.name}.draft")  # a review is there whole or not at all
    draft.unlink(missing_ok=True)
    store = new_store(draft, {"data": source, "model": model})
    try:
        with store.changing():
            names = dataset.vocabulary
            for name, category in zip(names.names, names.category_ids, strict=True):
                store.write("INSERT INTO classes (name, category_id) VALUES (?, ?)", (name, category))
            thumbs = []
            for index in range(len(dataset)):
                thumbs.append(_add_image(store, file, dataset, index, labelled=labelled))
                if progress is not None:
                    progress(index + 1, len(dataset))
            novelty = novelties(np.array(thumbs)) if thumbs else np.zeros(0)
            for image, value in enumerate(novelty.tolist(), start=1):
                store.write("UPDATE images SET novelty = ? WHERE id = ?", (value, image))
            images = list(range(1, len(dataset) + 1))
            if predictions is not None:
                add_predictions(store, images, predictions)
            else:
                rank(store, {image: Worth() for image in images})
        store.close()
    except BaseException:
        store.close()
        draft.unlink(missing_ok=True)
        raise
    draft.replace(file)
    return Store(file)


def _add_image(store: Store, file: Path, dataset: Dataset, index: int, *, labelled: bool) -> np.ndarray:
    """Write an image and its labels; its thumbnail."""
    sample = record_of(dataset, index)
    shown = dataset[index] if is_embedded(dataset) else sample
    # Decoded small, which JPEG does quickly: a thumbnail is all that is made of it.
    pixels = load(shown, _THUMB_PX if isinstance(shown.image, Path) else None).image
    assert isinstance(pixels, np.ndarray)
    absent = None if sample.absent_class_ids is None else json.dumps(sorted(sample.absent_class_ids))
    values = (
        index + 1,
        _file_of(file, shown, index + 1, pixels),
        sample.size_hw[1],
        sample.size_hw[0],
        sample.image_id,
        int(labelled),
        absent,
        json.dumps(sorted(sample.not_exhaustive_class_ids)),
    )
    store.write(
        "INSERT INTO images (id, file, width, height, image_id, labelled, absent, not_exhaustive) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    for label, box, score, crowd, mask in _objects(sample):
        origin = "label" if score is None else "model"
        model = sample.model_version if score is not None else ""
        insert_object(
            store,
            index + 1,
            label,
            box,
            origin=origin,
            score=score,
            model=model,
            crowd=crowd,
            mask=mask,
            # What a model is sure of is least worth a look.
            worth=0.0 if score is None else 1 - score,
        )
    return thumbnail(pixels)


def _objects(sample: Sample) -> Iterator[tuple[str, list[float], float | None, int, Rle | None]]:
    found = sample.instances
    for place, box in enumerate(found.boxes_xyxy_px.tolist()):
        score = None if found.scores is None else float(found.scores[place])
        mask = None if found.masks_rle is None else found.masks_rle[place]
        label = sample.vocabulary.names[int(found.class_ids[place])]
        yield label, box, score, int(found.is_crowd[place]), mask


def _file_of(review: Path, sample: Sample, number: int, pixels: np.ndarray) -> str:
    """Where the picture is, seen from the review; a picture that is no file of its own is written."""
    folder = review.parent.resolve()
    if isinstance(sample.image, Path) and not is_unpacked(sample.image):
        place = sample.image.resolve()
        return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else str(place)
    target = review.with_name(f"{review.stem}_images") / f"{number:06d}.png"
    try:
        target.parent.mkdir(exist_ok=True)
        whole = load(sample).image
        assert isinstance(whole, np.ndarray)
        Image.fromarray(whole).save(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error})") from error
    return f"{target.parent.name}/{target.name}"
