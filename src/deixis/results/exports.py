"""What results become: files, tables, other projects' forms. Functions of plain values, shared by boxes and masks."""

from __future__ import annotations

import base64
import csv
import html as html_text
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from deixis.atomic_files import write_atomic
from deixis.data.formats.yolo.write import label_lines
from deixis.data.inputs.pictures import Picture
from deixis.errors import DataError, DeixisError, OptionError
from deixis.records import Instances, Sample, Vocabulary

if TYPE_CHECKING:
    from deixis.results.result import Result

PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
SHOWN_ROWS, SHOWN_SIDE_PX = 20, 640  # in a notebook


def crops(
    pixels: UInt8[np.ndarray, "h w 3"], boxes_xyxy_px: Float[np.ndarray, "n 4"], margin: float
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The pixels that each box touches, at least one, with a margin as a share of the box's sides."""
    if not np.isfinite(margin) or margin < 0:
        raise OptionError(f"margin must be at least 0, got {margin}")
    height, width = pixels.shape[:2]
    cut = []
    for left, top, right, bottom in boxes_xyxy_px:
        more_x, more_y = margin * (right - left), margin * (bottom - top)
        # every pixel that the box touches, and inside the image
        x0 = int(np.clip(np.floor(left - more_x), 0, width - 1))
        y0 = int(np.clip(np.floor(top - more_y), 0, height - 1))
        x1, y1 = (
            int(np.clip(np.ceil(right + more_x), x0 + 1, width)),
            int(np.clip(np.ceil(bottom + more_y), y0 + 1, height)),
        )
        cut.append(pixels[y0:y1, x0:x1].copy())
    return cut


def save(result: Result[Any], path: Path) -> Path:
    """See `Detections.save`."""
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        file = io.BytesIO()
        result.plot().save(file, PICTURES[suffix], **({} if suffix == ".png" else {"quality": 92}))
        write_atomic(path, file.getvalue())
    elif suffix == ".json":
        write_atomic(path, json.dumps(result.to_coco(), ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    elif suffix == ".txt":
        write_atomic(path, result.to_yolo())
    elif suffix == ".csv":
        write_atomic(path, _csv(result.rows()))
    else:
        raise DataError(f"{path}: results are saved as {', '.join([*PICTURES, '.json', '.txt', '.csv'])}")
    return path


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file.getvalue()


def coco_results(found: Result[Any], vocabulary: Vocabulary | None = None) -> list[dict[str, Any]]:
    """COCO results of one image; see `Detections.to_coco`."""
    category_ids = category_ids_of(found.names, vocabulary, found.image_id)
    results = []
    for box, score, class_id in zip(found.boxes_xyxy_px, found.scores, found.class_ids, strict=True):
        left, top, right, bottom = (float(v) for v in box)
        results.append(
            {
                "image_id": found.image_id,
                "category_id": category_ids[class_id],
                # COCO: left, top, width, height
                "bbox": [round(v, 3) for v in (left, top, right - left, bottom - top)],
                "score": round(float(score), 6),
            }
        )
    return results


def category_ids_of(names: Sequence[str], vocabulary: Vocabulary | None, image_id: int) -> list[int]:
    """The category id of each name; positions from 1 without a vocabulary.

    Raises:
        DataError: a name is not in the vocabulary.
    """
    if vocabulary is None:
        return list(range(1, len(names) + 1))
    ids = dict(zip(vocabulary.names, vocabulary.category_ids, strict=True))
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise DataError(f"detections of image {image_id}: names {unknown} are not in {list(vocabulary.names)}")
    return [ids[name] for name in names]


def sample_of(
    image: Picture | None,
    size_hw: tuple[int, int],
    instances: Instances,
    *,
    names: Sequence[str],
    vocabulary: Vocabulary | None,
    image_id: int,
) -> Sample:
    """Results as annotations of their image; see `Detections.to_sample`."""
    if 0 in size_hw:
        raise DataError("these results do not know the size of their image; set size_hw to its (height, width)")
    known = vocabulary or Vocabulary(tuple(names))
    missing = [name for name in names if name not in known.names]
    if missing:
        raise DataError(f"names {missing} are not in the vocabulary {list(known.names)}")
    own = np.array([known.names.index(name) for name in names], np.int64)
    moved = Instances.build(
        instances.boxes_xyxy_px,
        own[instances.class_ids] if len(instances) else [],
        areas_px=instances.areas_px,
        masks_rle=instances.masks_rle,
    )
    stored: Path | np.ndarray = Path()
    if image is not None:
        stored = image.path if image.path is not None else image.load()
    name = "" if image is None else image.name
    return Sample(stored, size_hw, moved, known, image_id=image_id, source=name)


def yolo_text(sample: Sample, scores: Sequence[float] | np.ndarray | None) -> str:
    """Lines of a YOLO label file; see `Detections.to_yolo`."""
    lines = label_lines(sample, masks=True)
    if scores is not None:
        lines = [f"{line} {round(float(score), 6)}" for line, score in zip(lines, scores, strict=True)]
    return "".join(f"{line}\n" for line in lines)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Any:
    """Rows as a pandas table.

    Raises:
        OptionError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise OptionError("to_pandas needs pandas: pip install pandas; rows() gives plain records") from error
    return pandas.DataFrame(list(rows), columns=list(columns))


def summary(kind: str, labels: Sequence[str], unit: str, image: Picture | None, size_hw: tuple[int, int]) -> str:
    """A result in one line."""
    counts = [f"{count} {label}" for label, count in Counter(labels).most_common(5)]
    more = len(set(labels)) - len(counts)
    listed = ", ".join([*counts, *([f"{more} more classes"] if more > 0 else [])])
    place = f"{image.name}, " if image is not None else ""
    size = f"{size_hw[1]}x{size_hw[0]} pixels" if any(size_hw) else "an image"
    plural = "" if len(labels) == 1 else "s"
    return f"{kind}({len(labels)} {unit}{plural} in {place}{size}{': ' if listed else ''}{listed})"


def html(result: Result[Any]) -> str:
    """The drawn picture and a table, for notebooks; the table alone where the image cannot be read."""
    parts = [f"<p>{html_text.escape(repr(result))}</p>"]
    try:
        picture = result.plot()
        picture.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        parts.append(f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">')
    except DeixisError as error:
        parts.append(f"<p>{html_text.escape(str(error))}</p>")
    rows = [{k: v for k, v in row.items() if not k.startswith("image")} for row in result.rows()]
    if rows:
        heads = "".join(f"<th>{html_text.escape(key)}</th>" for key in rows[0])
        cells = ["".join(f"<td>{_cell(value)}</td>" for value in row.values()) for row in rows[:SHOWN_ROWS]]
        lines = "".join(f"<tr>{row}</tr>" for row in cells)
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>")
    if len(rows) > SHOWN_ROWS:
        parts.append(f"<p>and {len(rows) - SHOWN_ROWS} more</p>")
    return "".join(parts)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    return html_text.escape(str(value))
