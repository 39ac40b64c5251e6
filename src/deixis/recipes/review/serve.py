"""A review in the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deixis.console import print_text
from deixis.data.formats.review.schema import is_review
from deixis.errors import OptionError
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.options.review.push import ReviewPushOptions
from deixis.options.review.serve import ReviewServeOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.review.data import predicted, read_to_review
from deixis.recipes.run.devices import choose_device
from deixis.records import Rle

if TYPE_CHECKING:
    from deixis.review.store import Store

_MAX_BYTES = 64 << 20  # of a request: a mask


def serve_review(options: ReviewServeOptions) -> None:
    """Make the review where there is none, then serve its page until Ctrl-C.

    Raises:
        DeixisError: the extra is not installed, the data or a model cannot be used, or the port is taken.
    """
    try:
        from deixis.review.app import make_review_app
        from deixis.serving.door import Limits
        from deixis.serving.listening import Listener
    except ImportError as error:
        raise OptionError(f"reviewing needs {error.name}; pip install 'deixis[serve]'") from error
    limits = Limits(token=options.bearer_token, hosts=options.hosts, max_bytes=_MAX_BYTES)
    with Listener(options.host, options.port) as listener, opened_review(options) as store:
        app = make_review_app(store, limits, point_mask=point_mask_of(options) if options.segmenter else None)
        listener.run(app, f"reviewing on {listener.url}/; Ctrl-C ends it, everything is saved")


def opened_review(options: ReviewServeOptions | ReviewPushOptions) -> Store:
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
        made_from = store.fact("data")
        if made_from != options.data:
            store.close()
            raise OptionError(
                f"--db: {options.db} is a review of {made_from}; give another --db, or --data {options.db}"
            )
        return store
    detector = load_detector(options.model, choose_device(options.device)) if options.model else None
    known = () if detector is None else options.names or detector.names
    dataset, labelled = read_to_review(options.data, options.images, options.format, split=options.split, names=known)
    predictions = None
    if detector is not None:
        predictions = predicted(detector, dataset, options.model, options.threshold, batch_size=options.batch_size)
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


def point_mask_of(options: ReviewServeOptions) -> Callable[[np.ndarray, float, float], Rle]:
    """A segmenter's mask of a click."""
    from deixis.inference.refer.prompted_masks import PromptedMasks

    prompted = PromptedMasks(load_segmenter(options.segmenter, choose_device(options.device)))

    def mask(pixels: np.ndarray, x: float, y: float) -> Rle:
        return prompted.at_clicks(pixels, np.array([[x, y]]), np.array([True])).mask_rle

    return mask
