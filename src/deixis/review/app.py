"""The review over HTTP: a page of static files, and the routes that it asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from deixis.errors import DataError, DeixisError
from deixis.geometry.rle import plain_rle
from deixis.records import Rle
from deixis.review import actions, views
from deixis.review.pictures import Pictures
from deixis.review.queue import ORDERS
from deixis.review.store import ConflictError, Row, Store
from deixis.serving.door import Door, Limits, refused
from deixis.serving.metrics import Metrics
from deixis.text import one_line

PointMask = Callable[[np.ndarray, float, float], Rle]
"""Of an image's pixels and a point (x, y) in them, the mask of what is there."""
STATIC = Path(__file__).parent / "static"
FILES = {f"/static/{file.name}": file for file in sorted(STATIC.glob("*.*"))}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_KINDS = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}


class Asked(BaseModel):
    """An action of a person. `version` is that of the object, or of the image, which its author saw."""

    model_config = ConfigDict(extra="forbid")
    annotator: str = Field(min_length=1, max_length=100)
    kind: str
    object: int = 0
    image: int = 0
    version: int = 0
    label: str = Field("", max_length=200)
    box: list[float] = Field([], max_length=4)
    mask: dict[str, Any] | None = None


class AskedPoint(BaseModel):
    """A click on an object, in pixels of the image."""

    model_config = ConfigDict(extra="forbid")
    x: float = Field(ge=0)
    y: float = Field(ge=0)


class AskedUndo(BaseModel):
    """Whose latest action is undone."""

    model_config = ConfigDict(extra="forbid")
    annotator: str = Field(min_length=1, max_length=100)


def make_review_app(store: Store, limits: Limits, *, point_mask: PointMask | None = None) -> FastAPI:
    """The application of one review.

    Args:
        point_mask: makes a mask of a click; without it boxes only are drawn.
    """
    app = FastAPI(title="deixis review", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store, app.state.point_mask = store, point_mask
    app.state.pictures = Pictures(store.file.parent)
    for path, endpoint in (
        ("/api/review", show_review),
        ("/api/images", list_images),
        ("/api/images/{number}", show_image),
        ("/api/objects", list_objects),
        ("/api/pictures/{number}", show_picture),
        ("/api/crops/{number}", show_crop),
        ("/api/changes", list_changes),
    ):
        app.add_api_route(path, endpoint, methods=["GET"])
    app.add_api_route("/api/actions", act, methods=["POST"])
    app.add_api_route("/api/undo", undo, methods=["POST"])
    app.add_api_route("/api/images/{number}/mask", mask_at, methods=["POST"])
    app.add_api_route("/", page, methods=["GET"])
    app.add_api_route("/static/{name}", static, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    app.add_exception_handler(DeixisError, _bad)
    app.add_exception_handler(ConflictError, _conflict)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.middleware("http")(_guarded)
    app.add_middleware(Door, limits=limits, metrics=Metrics(lambda: 0))
    return app


async def _guarded(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
    """Nothing but JSON is taken: another site's form cannot send it. Answers say what a page may load."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        answer: Response = refused(415, "expected a body of application/json")
    else:
        answer = await follow(request)
    answer.headers.update(HEADERS)
    return answer


def _bad(request: Request, error: Exception) -> Response:
    return refused(422, one_line(error))


def _conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, ConflictError)
    who = error.current.get("annotator") or "somebody else"
    return JSONResponse({"error": f"{who} changed this meanwhile; look again", "by": who}, 409)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:5]]
    return refused(422, "; ".join(faults))


def page() -> Response:
    """The page."""
    return FileResponse(STATIC / "index.html", media_type="text/html")


def static(name: str) -> Response:
    """A file of the page; its name is looked up, never opened."""
    file = FILES.get(f"/static/{name}")
    return refused(404, "no such file") if file is None else FileResponse(file, media_type=_KINDS[file.suffix])


def health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


def show_review(request: Request) -> Row:
    """Names, counts, and what the page can do."""
    store: Store = request.app.state.store
    return {**views.summary(store), "masks": request.app.state.point_mask is not None, "orders": list(ORDERS)}


def list_images(request: Request, order: str = "worth", status: str = "", label: str = "") -> list[Row]:
    """The queue."""
    return views.images(request.app.state.store, order, status=status, label=label)


def show_image(request: Request, number: int) -> Row:
    """An image and its objects."""
    return views.image(request.app.state.store, number)


def list_objects(
    request: Request,
    status: str = "",
    label: str = "",
    min_score: float = 0.0,
    max_score: float = 1.0,
    sampled: bool = False,
    offset: int = 0,
) -> Row:
    """Objects for the grid of crops."""
    store: Store = request.app.state.store
    scores = (min_score, max_score)
    return views.objects(store, status=status, label=label, scores=scores, sampled=sampled, offset=offset)


def list_changes(request: Request, since: int = -1) -> Row:
    """Which images somebody changed since an action of the log; with -1 only the latest action's number."""
    return views.changes(request.app.state.store, since)


def show_picture(request: Request, number: int) -> Response:
    """The picture of an image."""
    row = request.app.state.store.row("images", number)
    return Response(request.app.state.pictures.jpeg(row), media_type="image/jpeg")


def show_crop(request: Request, number: int) -> Response:
    """An object cut out of its picture."""
    store: Store = request.app.state.store
    found = store.row("objects", number)
    return Response(
        request.app.state.pictures.crop(store.row("images", found["image"]), found), media_type="image/jpeg"
    )


def act(request: Request, asked: Asked) -> Row:
    """One action; the image as it is then."""
    store: Store = request.app.state.store
    version, annotator = asked.version, asked.annotator
    if asked.kind in actions.OBJECT_KINDS:
        image = actions.act_on_object(
            store, asked.kind, asked.object, version=version, annotator=annotator, label=asked.label, box=asked.box
        )
        return views.image(store, image)
    if asked.kind == "add":
        number = actions.add_object(
            store, asked.image, asked.label, annotator=annotator, box=asked.box, mask=asked.mask
        )
        return {**views.image(store, asked.image), "added": number}
    if asked.kind not in actions.IMAGE_KINDS:
        raise DataError(f"kind: expected one of {', '.join(actions.KINDS)}, got {asked.kind[:40]!r}")
    change = actions.finish_image if asked.kind == "finish" else actions.unfinish_image
    change(store, asked.image, version=version, annotator=annotator)
    return views.image(store, asked.image)


def undo(request: Request, asked: AskedUndo) -> Row:
    """Undo a person's latest action; its image as it is then."""
    store: Store = request.app.state.store
    return views.image(store, actions.undo(store, asked.annotator))


def mask_at(request: Request, number: int, asked: AskedPoint) -> Row:
    """The mask under a click, to be added by an action."""
    if request.app.state.point_mask is None:
        raise DataError("no segmenter is loaded; start with --segmenter to make masks by click")
    row = request.app.state.store.row("images", number)
    if asked.x >= row["width"] or asked.y >= row["height"]:
        raise DataError(f"point: lies outside of the image of {row['width']}x{row['height']} pixels")
    pixels = request.app.state.pictures.pixels(row)
    return {"mask": plain_rle(request.app.state.point_mask(pixels, asked.x, asked.y))}
