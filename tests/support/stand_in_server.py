"""A server in memory on models that stand in for real ones."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from deixis.data.inputs.pictures import Picture
from deixis.data.pixels.frames import video_writer
from deixis.data.pixels.video_file import VideoFrames
from deixis.errors import PromptError
from deixis.geometry.rle import bitmap_rle
from deixis.inference.detect.detector import Detector
from deixis.inference.refer.segmenter import Segmenter
from deixis.refer_records import Segmentation
from deixis.results.detections import Detections
from deixis.results.segmentations import Segmentations
from deixis.serving.app import make_app
from deixis.serving.door import Limits
from deixis.serving.listening import Listener
from deixis.serving.models import Models


class StandInDetector(Detector):
    """Finds each name in the left half of an image; waits at a gate, and counts its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    @property
    def names(self) -> tuple[str, ...]:
        return ("cat",)

    def predict(self, images: Any, names: Any = None, threshold: Any = None, **more: Any) -> list[Detections]:
        self.begun.set()
        self.gate.wait(10)
        self.sizes.append(len(images))
        texts = tuple(names or self.names)
        if "unheard of" in texts:
            raise PromptError("the name 'unheard of' is too long")
        found = []
        for pixels in images:
            height, width = pixels.shape[:2]
            boxes = np.tile([[0.0, 0, width / 2, height]], (len(texts), 1))
            scores = np.full(len(texts), 0.5 if threshold is None else max(threshold, 0.5))
            picture = Picture("image", pixels)
            found.append(
                Detections(boxes, scores, np.arange(len(texts)), texts, size_hw=(height, width), image=picture)
            )
        return found

    def track(self, frames: Any, names: Any = None, threshold: Any = None, **more: Any) -> Iterator[Detections]:
        for number, pixels in enumerate(VideoFrames(frames)):
            (found,) = self.predict([pixels], names, threshold)
            yield replace(found, image_id=number, track_ids=np.arange(1, len(found) + 1))


class StandInSegmenter(Segmenter):
    """Marks the upper left pixel for each phrase."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def segment(self, images: Any, phrases: Any, batch_size: int = 8, **more: Any) -> list[Segmentations]:
        self.asked.append(list(phrases))
        found = []
        for pixels in images:
            mask = np.zeros(pixels.shape[:2], np.uint8)
            mask[0, 0] = 1
            answers = tuple(Segmentation(phrase, bitmap_rle(mask), 0.75, 0.5) for phrase in phrases)
            found.append(Segmentations(answers, Picture("image", pixels)))
        return found


class Server:
    """An application and its models."""

    def __init__(self, limits: Limits | None = None, **more: Any) -> None:
        self.detector, self.segmenter = StandInDetector(), StandInSegmenter()
        models = Models({"cats": self.detector, "dogs": StandInDetector()}, {"masks": self.segmenter})
        limits = limits or Limits(hosts=("localhost",))
        self.app = make_app(models, limits, **more)
        self.client = TestClient(self.app, base_url="http://localhost")


@contextmanager
def answering(app: FastAPI) -> Iterator[str]:
    """An application that listens on loopback: its address."""
    with Listener("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=listener.run, args=(app,), daemon=True)
        thread.start()
        while listener.server is None or not listener.server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listener.url
        listener.server.should_exit = True
        thread.join(20)


def image(width: int = 60, height: int = 40) -> str:
    """A picture of one colour in base64."""
    return base64.b64encode(content(width, height)).decode()


def content(width: int = 60, height: int = 40) -> bytes:
    """The content of its file."""
    file = BytesIO()
    Image.new("RGB", (width, height), (90, 60, 30)).save(file, "PNG")
    return file.getvalue()


def film(path: Path, frames: int = 6, width: int = 48, height: int = 32) -> bytes:
    """The content of a film of grey frames, written to a path."""
    with video_writer(path, 24) as write:
        for number in range(frames):
            write(np.full((height, width, 3), 20 * number % 256, np.uint8))
    return path.read_bytes()
