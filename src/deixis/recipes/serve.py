"""Models over HTTP, until the process is told to stop."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deixis.errors import OptionError
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.options.serve import ServeOptions, named_models
from deixis.recipes.run.devices import choose_device

if TYPE_CHECKING:
    from fastapi import FastAPI

    from deixis.serving.listening import Listener
    from deixis.serving.models import Models


def serve(options: ServeOptions) -> None:
    """Load the models, then answer requests. SIGTERM and Ctrl-C end it once open requests are answered.

    Raises:
        DeixisError: the extra is not installed, a model cannot be loaded, or the port is taken.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401

        from deixis.serving.listening import Listener
    except ImportError as error:
        raise OptionError(f"serving needs {error.name}; pip install 'deixis[serve]'") from error
    # The port comes first: loading models takes long, and a port that is taken is known at once.
    with Listener(options.host, options.port) as listener:
        models = _models(options)
        app = _application(options, models)
        lines = [f"serving {', '.join([*models.detectors, *models.segmenters])} on {listener.url}/docs"]
        if options.playground and find_spec("gradio") is not None:
            _add_playground(app, options, listener)
            lines.append(f"playground on {listener.url}/")
        listener.run(app, *lines, take_s=options.timeout, finish_s=options.finish)


def _models(options: ServeOptions) -> Models:
    from deixis.serving.models import Models

    device = choose_device(options.device)
    models = Models(
        {name: load_detector(place, device) for name, place in named_models(options.detector).items()},
        {name: load_segmenter(place, device) for name, place in named_models(options.segmenter).items()},
    )
    detectors, segmenters = models.detectors.values(), models.segmenters.values()
    for model in (*(one.bundle.model for one in detectors), *(one.bundle.model for one in segmenters)):
        model.eval()  # films are followed in turn with requests, and none may restore another mode
    return models


def _application(options: ServeOptions, models: Models) -> FastAPI:
    from deixis.serving.app import make_app
    from deixis.serving.door import Limits
    from deixis.serving.films import FilmLimits
    from deixis.serving.labelling.label_studio import add_label_studio
    from deixis.serving.labelling.task_images import LabelStudio

    studio = LabelStudio(options.label_studio, os.environ.get("LABEL_STUDIO_API_KEY", ""))
    max_pixels = int(options.max_megapixels * 1e6)
    return make_app(
        models,
        Limits(
            token=options.bearer_token,
            hosts=options.hosts,
            max_bytes=int(options.max_megabytes * 1e6),
            body_s=options.timeout,
            max_open=4 * options.max_waiting,
        ),
        max_batch=options.max_batch,
        max_waiting=options.max_waiting,
        timeout_s=options.timeout,
        max_pixels=max_pixels,
        url_hosts=options.url_hosts,
        films=FilmLimits(options.max_film_frames, max_pixels),
        folders={name: Path(place) for name, place in named_models(options.folders).items()},
        jobs_folder=options.jobs_folder,
        finish_s=options.finish,
        mounts=[lambda app: add_label_studio(app, studio)],
    )


def _add_playground(app: FastAPI, options: ServeOptions, listener: Listener) -> None:
    """The page at `/`."""
    from deixis.serving.playground.mounting import mount_playground

    mount_playground(
        app,
        detectors=named_models(options.detector),
        segmenters=named_models(options.segmenter),
        url=listener.url,
        max_bytes=int(options.max_megabytes * 1e6),
        stopping=listener.stopping,
    )
