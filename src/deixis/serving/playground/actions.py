"""What the page's components do: each function takes their values and returns new ones."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from deixis.errors import DeixisError, OptionError
from deixis.results.draw import enlarged
from deixis.serving.batches import QueueFullError, StoppedError
from deixis.serving.models import Models
from deixis.serving.playground.asking import Shot, Turn, click, described, detect, opened, segment
from deixis.serving.playground.looks import COLUMNS, Look, fitting
from deixis.serving.playground.snippets import command_of, python_of
from deixis.text import one_line

NO_MODEL = "none"
DEFAULT_THRESHOLD = 0.3


@dataclass(frozen=True)
class Seen:
    """What a visitor has before them: a file, and the answer of one model or of two."""

    shot: Shot
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Playground:
    """What the page's functions share.

    Attributes:
        turn: runs what uses a model when its turn comes.
        detectors, segmenters: folders or hub ids of the models by name, as `load_detector` takes them.
        url: of the server.
    """

    models: Models
    turn: Turn
    detectors: Mapping[str, str]
    segmenters: Mapping[str, str]
    url: str
    max_pixels: int

    @property
    def names(self) -> list[str]:
        """Of all models, as the visitor chooses them."""
        return [*self.models.detectors, *map(self._shown_name, self.models.segmenters)]

    def _shown_name(self, segmenter: str) -> str:
        return f"{segmenter} (segmenter)" if segmenter in self.models.detectors else segmenter

    def _segmenter(self, name: str) -> str | None:
        """The segmenter that is meant; None for a detector."""
        return next((one for one in self.models.segmenters if self._shown_name(one) == name), None)

    def threshold(self, name: str) -> float:
        """A model's own threshold."""
        if served := self._segmenter(name):
            segmenter = self.models.segmenters[served]
            return segmenter.threshold if segmenter.bundle.behaviour == "deixis" else 0.0
        detector = self.models.detectors[name]
        return float(np.min(detector.thresholds(detector.names))) if detector.names else DEFAULT_THRESHOLD

    def _look(self, name: str, typed: str, shot: Shot) -> Look:
        if served := self._segmenter(name):
            return segment(self.models.segmenters[served], self.turn, served, typed, shot)
        return detect(self.models.detectors[name], self.turn, name, typed, shot)

    def _place(self, look: Look) -> str:
        return (self.detectors if look.task == "detect" else self.segmenters)[look.model]

    def read(self, file: str | None) -> tuple[Any, ...]:
        """A new file: it is shown, and the slider of frames fits it."""
        if file is None:
            return (None, said_text(""), gr.Slider(visible=False, value=1), *self.view(None, 1, 0.0))
        seen, why = _tried(lambda: Seen(opened(Path(file), self.max_pixels)))
        is_film = seen is not None and seen.shot.film
        slider = gr.Slider(visible=is_film, value=1, maximum=max(2, len(seen.shot.frames)) if seen else 2)
        return (seen, why, slider, *self.view(seen, 1, 0.0))

    def find(
        self, seen: Seen | None, typed: str, first: str, second: str, frame: float, threshold: float
    ) -> tuple[Any, ...]:
        """What one model or two find."""

        def found() -> Seen:
            shot = _shot(seen)
            names = [first] if second in (NO_MODEL, first) else [first, second]
            return Seen(shot, tuple(self._look(name, typed, shot) for name in names))

        return self._after(seen, found, frame, threshold)

    def click(self, seen: Seen | None, frame: float, threshold: float, event: gr.SelectData) -> tuple[Any, ...]:
        """One more object, where the visitor clicked."""

        def found() -> Seen:
            shot, number = _shot(seen), int(frame) - 1
            before = seen.looks[0] if seen is not None and seen.looks else None
            x, y = (float(value) for value in event.index)
            scale = _scale(shot, number)
            at = (number, round(x / scale, 1), round(y / scale, 1))
            return Seen(shot, (click(self.models, self.turn, shot, before, at=at),))

        return self._after(seen, found, frame, threshold)

    def describe(self, seen: Seen | None, frame: float, threshold: float) -> tuple[Any, ...]:
        """Captions of what is shown in the frame."""

        def found() -> Seen:
            shot, number = _shot(seen), int(frame) - 1
            if seen is None or not seen.looks:
                raise OptionError("find something first, then describe it")
            looks = (described(self.models, self.turn, look, number, threshold) for look in seen.looks)
            return Seen(shot, tuple(looks))

        return self._after(seen, found, frame, threshold)

    def _after(self, seen: Seen | None, work: Callable[[], Seen], frame: float, threshold: float) -> tuple[Any, ...]:
        """State, message and view; where the work fails, all stays but the message."""
        done, why = _tried(work)
        seen = done or seen
        return (seen, why, *self.view(seen, frame, threshold))

    def view(self, seen: Seen | None, frame: float, threshold: float) -> tuple[Any, ...]:
        """Both pictures, the table, Python and the command. No model runs."""
        if seen is None:
            return None, None, gr.Column(visible=False), "", "", ""
        number = min(int(frame), len(seen.shot.frames)) - 1
        looks, name = seen.looks, seen.shot.name
        if not looks:
            return _bare(seen.shot, number), None, gr.Column(visible=False), "", "", ""
        second = looks[1].drawn(number, threshold) if len(looks) > 1 else None
        rows = [[*row, look.model] if len(looks) > 1 else row for look in looks for row in look.rows(number, threshold)]
        headers = [*COLUMNS, "model"] if len(looks) > 1 else list(COLUMNS)
        return (
            gr.Image(looks[0].drawn(number, threshold), label=looks[0].model),
            gr.Image(second, label=looks[-1].model),
            gr.Column(visible=second is not None),
            _table(headers, rows),
            "\n".join(
                python_of(look, self._place(look), name, threshold=threshold, is_film=seen.shot.film) for look in looks
            ),
            "\n".join(command_of(look, self._place(look), name, threshold=threshold, url=self.url) for look in looks),
        )


def _shot(seen: Seen | None) -> Shot:
    if seen is None:
        raise OptionError("drop a picture or a film first")
    return seen.shot


def _bare(shot: Shot, number: int) -> np.ndarray:
    """A frame as it is, in the size in which it is drawn on."""
    return np.asarray(fitting(enlarged(shot.frames[number].load())[0]))


def _scale(shot: Shot, number: int) -> float:
    """Pixels of the shown picture per pixel of the image."""
    return float(_bare(shot, number).shape[1] / shot.frames[number].load().shape[1])


def _tried(work: Callable[[], Seen]) -> tuple[Seen | None, str]:
    """What some work gives, or None; and what is to be said about it."""
    try:
        return work(), said_text("")
    except DeixisError as error:
        return None, said_text(one_line(error))
    except QueueFullError as error:
        return None, said_text(f"the server is busy; ask again in {error.retry_after_s} s")
    except (StoppedError, CancelledError):
        return None, said_text("the server stops")
    except TimeoutError:
        return None, said_text("there was no answer in time; ask for less, or later")


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """As HTML, whatever is in the cells."""
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in headers)
    return f'<div class="shown"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def said_text(text: str) -> str:
    return f'<div class="said" role="status">{html.escape(text)}</div>'


def coco_text(seen: Seen | None, position: int, threshold: float) -> str:
    """What is shown of one of the looks, as a COCO file; empty where there is none."""
    if seen is None or position >= len(seen.looks):
        return ""
    return seen.looks[position].coco(threshold, seen.shot.name)
