"""What clients may ask, as forms that are checked before anything else looks at them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=200)]
Box = Annotated[list[float], Field(min_length=4, max_length=4)]
_MAX_OBJECTS = 1000


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Asked(_Form):
    """What all requests about one image have."""

    image: str = Field(description="the content of an image file as base64, or a URL of a host that is allowed")
    model: str = Field("", description="the name of a served model; the first if not given")
    answer: Literal["json", "picture"] = Field("json", description="JSON, or the image with the answer drawn, as PNG")


class AskedDetect(Asked):
    """Find named things."""

    names: list[Text] = Field([], max_length=_MAX_OBJECTS, description="what to look for; the model's own if empty")
    threshold: float | None = Field(None, ge=0, le=1)
    max_detections: int = Field(100, ge=1, le=_MAX_OBJECTS)


class Point(_Form):
    """A click: in pixels from the upper left corner, on the object or beside it."""

    x: float = Field(ge=0, allow_inf_nan=False)
    y: float = Field(ge=0, allow_inf_nan=False)
    positive: bool = True


class AskedSegment(Asked):
    """The mask of each phrase, of the object in each box, or of the one object that points lie on."""

    phrases: list[Text] = Field([], max_length=100)
    boxes: list[Box] = Field(
        [], max_length=100, description="corners [x1, y1, x2, y2] in pixels; phrases, if given, say what is in each"
    )
    points: list[Point] = Field(
        [], max_length=100, description="on one object, or beside it; with at most one box and one phrase"
    )


class MaskRle(BaseModel):
    """COCO's run lengths: `size` is [height, width], `counts` text or numbers."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str | list[int]


class AskedDescribe(Asked):
    """A caption of each mask."""

    masks: list[MaskRle] = Field(min_length=1, max_length=100)


class AskedAnnotate(Asked):
    """Boxes, masks and captions of named things or, without names, of whatever is there."""

    detector: str = ""
    names: list[Text] = Field([], max_length=100)
    threshold: float | None = Field(None, ge=0, le=1)
    max_objects: int = Field(50, ge=1, le=200)


class AskedTrack(_Form):
    """Follow named things (boxes with track ids) or phrases (masks) through a short film."""

    video: str = Field(description="the content of a video file as base64")
    model: str = Field("", description="the name of a served detector, or with phrases of a segmenter")
    names: list[Text] = Field([], max_length=_MAX_OBJECTS, description="what to look for; the model's own if empty")
    phrases: list[Text] = Field([], max_length=20)
    threshold: float | None = Field(None, ge=0, le=1, description="minimum score of a detection")
    answer: Literal["json", "film"] = Field("json", description="JSON, or the film with the answer drawn, as MP4")


class AskedJob(BaseModel):
    """Work on a folder or a film that takes longer than a request: a task, what it works on, and the task's own fields
    (those of `/v1/detect`, `/v1/segment` by phrase and `/v1/annotate` for folders, of `/v1/track` for films)."""

    model_config = ConfigDict(extra="allow")
    task: Literal["detect", "segment", "annotate", "track"]
    path: str = Field("", max_length=4096, description="a folder, or a film, as ROOT/PATH below a served folder")
    video: str = Field("", description="for track: the content of a video file as base64")
