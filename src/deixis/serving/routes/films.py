"""The route about a short film."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from fastapi import FastAPI, Response

from deixis.serving.films import FILM, followed, in_turn, open_film, write_film
from deixis.serving.images import decoded_base64
from deixis.serving.requests import AskedTrack
from deixis.serving.routes.answering import Serving, add_form_route, json_response


def add_film_routes(app: FastAPI) -> None:
    """`/v1/track`."""
    add_form_route(app, "/v1/track", AskedTrack, _track)


async def _track(serving: Serving, asked: AskedTrack) -> Response:
    stop = Event()
    try:
        # a thread that may be left behind when the time is over: it ends after its current frames
        return await asyncio.to_thread(_tracked, serving, asked, stop)
    finally:
        stop.set()


def _tracked(serving: Serving, asked: AskedTrack, stop: Event) -> Response:
    with TemporaryDirectory(prefix="deixis-film-") as folder:
        path, drawn = Path(folder) / FILM, Path(folder) / "drawn.mp4"
        path.write_bytes(decoded_base64("video", asked.video))
        frames = open_film(path, serving.films)
        steps = in_turn(serving.batches, followed(serving.models, asked, frames), stop)
        if asked.answer == "film":
            for _ in write_film(drawn, frames.rate, steps):
                pass
            return Response(drawn.read_bytes(), media_type="video/mp4")
        rows = [row for row, _ in steps]
        height, width = frames.size_hw
        head = {"video": {"width": width, "height": height, "rate": round(float(frames.rate), 3)}}
        return json_response({**head, "frames": rows})
