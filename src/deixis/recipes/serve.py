"""Models over HTTP, until the process is told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from deixis.console import Console
from deixis.errors import OptionError
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.options.serve import ServeOptions, accepted_hosts, named_models
from deixis.recipes.run.devices import choose_device


def serve(options: ServeOptions) -> None:
    """Load the models, then answer requests. SIGTERM and Ctrl-C end it once open requests are answered.

    Raises:
        DeixisError: the extra is not installed, a model cannot be loaded, or the port is taken.
    """
    try:
        import uvicorn

        from deixis.serving.app import make_app
        from deixis.serving.connections import with_limits
        from deixis.serving.door import Limits
        from deixis.serving.films import FilmLimits
        from deixis.serving.labelling.label_studio import add_label_studio
        from deixis.serving.labelling.task_images import LabelStudio
        from deixis.serving.models import Models
    except ImportError as error:
        raise OptionError(f"serving needs {error.name}; pip install 'deixis[serve]'") from error
    device = choose_device(options.device)
    models = Models(
        {name: load_detector(place, device) for name, place in named_models(options.detector).items()},
        {name: load_segmenter(place, device) for name, place in named_models(options.segmenter).items()},
    )
    for bundle in [one.bundle for one in models.detectors.values()] + [
        one.bundle for one in models.segmenters.values()
    ]:
        bundle.model.eval()  # films are followed in turn with requests, and none may restore another mode
    studio = LabelStudio(options.label_studio, os.environ.get("LABEL_STUDIO_API_KEY", ""))
    app = make_app(
        models,
        Limits(
            token=options.bearer_token,
            hosts=accepted_hosts(options.host),
            max_bytes=int(options.max_megabytes * 1e6),
            body_s=options.timeout,
            max_open=4 * options.max_waiting,
        ),
        max_batch=options.max_batch,
        wait_s=options.batch_wait,
        max_waiting=options.max_waiting,
        timeout_s=options.timeout,
        max_pixels=int(options.max_megapixels * 1e6),
        url_hosts=options.url_hosts,
        films=FilmLimits(options.max_film_frames, options.max_film_seconds, int(options.max_megapixels * 1e6)),
        folders={name: Path(place) for name, place in named_models(options.folders).items()},
        jobs_folder=options.jobs_folder,
        max_jobs=options.max_jobs,
        finish_s=options.finish,
        mounts=[lambda app: add_label_studio(app, studio)],
    )
    place = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{options.port}"
    console = Console(highlight=False)
    console.print(f"serving {', '.join([*models.detectors, *models.segmenters])} on {place}/docs", markup=False)
    config = uvicorn.Config(
        app,
        options.host,
        options.port,
        log_level="warning",
        http=with_limits(options.head_timeout, options.timeout, options.max_connections),
        timeout_graceful_shutdown=ceil(options.finish),
        server_header=False,
        h11_max_incomplete_event_size=1 << 16,
    )
    server = uvicorn.Server(config)
    if options.playground and _add_playground(app, options, place, lambda: server.should_exit):
        console.print(f"playground on {place}/", markup=False)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's, where it cannot start
        raise OptionError(f"--port: cannot listen on {place}; choose another --port or --host") from error


def _add_playground(app: Any, options: ServeOptions, url: str, stopping: Callable[[], bool]) -> bool:
    """The page at `/`, where Gradio is installed."""
    if find_spec("gradio") is None:
        return False
    from deixis.serving.playground.mounting import mount_playground

    mount_playground(
        app,
        detectors=named_models(options.detector),
        segmenters=named_models(options.segmenter),
        url=url,
        max_bytes=int(options.max_megabytes * 1e6),
        stopping=stopping,
    )
    return True
