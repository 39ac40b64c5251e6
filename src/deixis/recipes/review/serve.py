"""A review in the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deixis.console import print_text
from deixis.data.formats import read_dataset
from deixis.data.formats.review.schema import is_review
from deixis.data.inputs.find import find_images
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError, OptionError
from deixis.inference.detect.detector import Detector, load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.options.review.serve import ReviewServeOptions
from deixis.options.serve import LOOPBACK
from deixis.progress_bar import ProgressBar
from deixis.recipes.run.devices import choose_device
from deixis.records import Dataset, Instances, Rle, Sample, SampleList, Vocabulary

if TYPE_CHECKING:
    from fastapi import FastAPI

    from deixis.review.predicted import Predictions
    from deixis.review.store import Store

_MAX_BYTES = 64 << 20  # of a request: a mask


def serve_review(options: ReviewServeOptions) -> None:
    """Make the review where there is none, then serve its page until Ctrl-C.

    Raises:
        DeixisError: the extra is not installed, the data or a model cannot be used, or the port is taken.
    """
    try:
        import uvicorn

        from deixis.review.app import make_review_app
        from deixis.serving.door import Limits
    except ImportError as error:
        raise OptionError(f"reviewing needs {error.name}; pip install 'deixis[serve]'") from error
    store = opened_review(options)
    hosts = LOOPBACK if options.host in LOOPBACK else ()
    limits = Limits(token=options.bearer_token, hosts=hosts, max_bytes=_MAX_BYTES)
    app = make_review_app(store, limits, point_mask=point_mask_of(options) if options.segmenter else None)
    try:
        _run(uvicorn, app, options.host, options.port)
    finally:
        store.close()


def opened_review(options: ReviewServeOptions) -> Store:
    """The review that the options name, made where there is none.

    Raises:
        DeixisError: it, the data or the model cannot be used.
    """
    from deixis.review.build import build_review
    from deixis.review.store import Store

    given = Path(options.data)
    if given.is_file() and is_review(given):
        return Store(given)
    if options.db.exists():
        store = Store(options.db)
        if store.fact("data") != options.data:
            store.close()
            raise OptionError(
                f"--db: {options.db} is a review of {store.fact('data')}; give another --db, or --data {options.db}"
            )
        return store
    detector = load_detector(options.model, choose_device(options.device)) if options.model else None
    dataset, labelled = _dataset(options, detector)
    predictions = None if detector is None else predicted(detector, dataset, options)
    with ProgressBar("images") as progress:
        store = build_review(
            options.db,
            dataset,
            source=options.data,
            labelled=labelled,
            predictions=predictions,
            progress=progress,
        )
    print_text(f"made {options.db}: {len(dataset)} images of {options.data}")
    return store


def predicted(detector: Detector, dataset: Dataset, options: ReviewServeOptions) -> Predictions:
    """What the model finds in the images of a data set."""
    from deixis.review.predicted import Predictions

    with ProgressBar("predicted images") as progress:
        found = detector.predict_dataset(dataset, options.batch_size, progress=progress)
    names = dataset.vocabulary.names
    least = np.broadcast_to(np.asarray(detector.thresholds(names, options.threshold)), len(names)).tolist()
    return Predictions(options.model, found, dict(zip(names, least, strict=True)))


def _dataset(options: ReviewServeOptions, detector: Detector | None) -> tuple[Dataset, bool]:
    """What is reviewed, and whether it is labelled."""
    try:
        images = None if options.images is None else Path(options.images)
        return read_dataset(options.data, images, options.format, split=options.split), True
    except DataError:
        files = find_images([Path(options.data)]) if Path(options.data).is_dir() and detector is not None else []
        if not files or options.format is not None:
            raise
    assert detector is not None
    names = options.names or detector.names
    if not names:
        raise OptionError(f"--names is required: {options.data} has no annotations, and the model names no classes")
    vocabulary = Vocabulary(tuple(dict.fromkeys(names)))
    samples = [
        Sample(file, image_sizes_hw(file)[0], Instances.none(), vocabulary, number, file.name)
        for number, file in enumerate(files, start=1)
    ]
    return SampleList(tuple(samples), vocabulary, options.data), False


def point_mask_of(options: ReviewServeOptions) -> Callable[[np.ndarray, float, float], Rle]:
    """A segmenter's mask of a click."""
    from deixis.inference.refer.prompted_masks import PromptedMasks

    prompted = PromptedMasks(load_segmenter(options.segmenter, choose_device(options.device)))

    def mask(pixels: np.ndarray, x: float, y: float) -> Rle:
        return prompted.at_clicks(pixels, np.array([[x, y]]), np.array([True])).mask_rle

    return mask


def _run(uvicorn: object, app: FastAPI, host: str, port: int) -> None:
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print_text(f"reviewing on {place}/; Ctrl-C ends it, everything is saved")
    config = uvicorn.Config(  # type: ignore[attr-defined]
        app, host, port, log_level="warning", server_header=False, timeout_graceful_shutdown=10
    )
    try:
        uvicorn.Server(config).run()  # type: ignore[attr-defined]
    except SystemExit as error:  # uvicorn's, where it cannot start
        raise OptionError(f"--port: cannot listen on {place}; choose another --port or --host") from error
