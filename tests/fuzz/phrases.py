"""Builders for the readers of phrases and masks, and for hostile pickles."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import refer_miniatures as mini

from deixis.data.refer.loading import decoded
from deixis.data.refer_formats import read_refer
from deixis.refer_records import ReferSample
from deixis.video_records import Clip
from fuzz.damage import hostile_value


def read_phrases(path: Path, format: str | None, split: str | None, collected: bool) -> None:
    """A data set with all of its samples and pictures, as training reads it or as `refer check` does."""
    dataset = read_refer(path, format=format, split=split, faults=[] if collected else None)
    for index in range(len(dataset)):
        sample: ReferSample | Clip = dataset[index]
        if isinstance(sample, Clip):  # a chat about a video
            list(sample.frames.read((0,)))
        else:
            decoded(sample)


def _reader(place: Path, format: str, random: Random, split: str | None = None) -> Callable[[], object]:
    named = format if random.random() < 0.6 else None
    return partial(read_phrases, place, named, split, random.random() < 0.3)


def _refcoco(folder: Path, random: Random) -> Callable[[], object]:
    root = mini.refcoco(folder / "set", protocol=random.choice([0, 2, 4]))
    if random.random() < 0.4:  # wrong values in the pickle, which damage to its bytes seldom makes
        file = root / "refs(unc).p"
        refs = pickle.loads(file.read_bytes())  # noqa: S301
        for _ in range(random.choice([1, 1, 3])):
            ref = random.choice(refs)
            ref[random.choice(list(ref))] = hostile_value(random)
        file.write_bytes(pickle.dumps(refs if random.random() < 0.9 else hostile_value(random)))
    return _reader(root, "refcoco", random, "train")


def _pickle(folder: Path, random: Random) -> Callable[[], object]:
    root = mini.refcoco(folder / "set")
    (root / "refs(unc).p").write_bytes(random.choice(list(hostile_pickles().values())))
    return _reader(root, "refcoco", random, "train")


def hostile_pickles() -> dict[str, bytes]:
    """Pickles that want to run something, to fill the memory, or to exhaust the stack."""
    doubled = b"(lp0\n" + b"".join(b"(g%d\ng%d\nlp%d\n" % (i, i, i + 1) for i in range(60)) + b"."
    return {
        "import": b"cos\nsystem\n(S'true'\ntR.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        "build": b"\x80\x02}}b.",
        "reduce text": b"\x80\x02X\x01\x00\x00\x00aX\x01\x00\x00\x00b\x85R.",
        "new object": b"\x80\x02X\x01\x00\x00\x00a)\x81.",
        "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "persistent text": b"Pabc\n.",
        "extension": b"\x80\x02\x82\x01.",
        "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        "huge array": b"\x80\x05\x96" + struct.pack("<Q", 1 << 38) + b"x.",
        "huge long": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",
        "negative long": b"\x80\x02\x8b" + struct.pack("<i", -5) + b"\x01.",
        "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",
        "memo far away": b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".",
        "memo huge text": b"Np99999999999\n.",
        "digits": b"I" + b"9" * 100_000 + b"\n.",
        "long digits": b"L" + b"9" * 1_000_000 + b"L\n.",
        "deep lists": b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
        "deep keys": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
        "doubled": doubled,
        "list in itself": b"\x80\x02]q\x00h\x00a.",
        "dict in itself": b"\x80\x02]q\x00}q\x01X\x06\x00\x00\x00ref_idq\x02h\x01sa.",
        "unhashable key": b"\x80\x02}]Ns.",
        "pop of nothing": b"00000.",
        "marks": b"(" * 100_000 + b".",
        "next buffer": b"\x80\x05\x97.",
        "protocol": b"\x80\xff.",
        "bad utf-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        "python 2 text": b"S'\\xff\\xfe'\n.",
        "nothing": b"",
        "no end": b"\x80\x02]" * 50,
        "append to number": b"K\x01Na.",
        "items of list": b"\x80\x02](NNu.",
        "rows twice": pickle.dumps([{"ref_id": 1}] * 1000),
    }


def _sa1b(folder: Path, random: Random) -> Callable[[], object]:
    return _reader(mini.sa1b(folder / "set", (1, 2)), "sa1b", random)


def _open_images(folder: Path, random: Random) -> Callable[[], object]:
    return _reader(mini.open_images(folder / "set"), "openimages_masks", random)


def _plain(folder: Path, random: Random) -> Callable[[], object]:
    (folder / "set").mkdir()
    for name in "ab":
        mini.picture(folder / "set" / f"{name}.jpg")
    square = [[2, 2, 12, 2, 12, 22, 2, 22]]
    entries: list[Any] = [
        {"image": "a.jpg", "mask": [square, mini.rle(square)], "text": ["the left one", "a cup"]},
        {"image": "b.jpg", "height": 30, "width": 40, "id": 7, "expressions": [
            {"text": ["two", "both of them"], "masks": [square, mini.rle(square)], "tags": ["relation"], "id": 3},
            {"text": "a dog", "masks": []}]},
    ]  # fmt: skip
    return _reader(mini.plain(folder / "set", entries), "refer_json", random)


def _templates(folder: Path, random: Random) -> Callable[[], object]:
    return _reader(mini.coco(folder / "set"), "coco", random)


BUILDERS: dict[str, Callable[[Path, Random], Callable[[], object]]] = {
    "refcoco": _refcoco,
    "refcoco pickle": _pickle,
    "sa1b": _sa1b,
    "open images masks": _open_images,
    "refer json": _plain,
    "coco as phrases": _templates,
}
