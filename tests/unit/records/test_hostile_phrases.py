"""Hostile files of phrases, masks and clips: one line with a file's name, quickly, and nothing executed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import chat_miniatures as chats
import clip_miniatures as clips
import numpy as np
import pytest
import refer_miniatures as phrases
from fuzz.clips import read_whole
from fuzz.phrases import hostile_pickles, read_phrases
from PIL import Image

from deixis.data.clip_formats import are_clips, read_clips
from deixis.data.pixels.frames import open_frames
from deixis.data.reading import shown
from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.plain_pickle import MAX_TUPLES, fault_of_pickle, load_plain_pickle
from deixis.errors import DataError

BIG = int("8" * 4_000)
STRANGE: list[Any] = [None, True, -1, 2.5, float("nan"), BIG, "x", "\udce9", [], [[1]], {}, {"a": 1}, "9" * 5_000]
PHRASES = {
    "refcoco": (phrases.refcoco, "refcoco/instances.json"),
    "sa1b": (phrases.sa1b, "sa_1.json"),
    "refer_json": (lambda folder: phrases.plain(folder, entries(folder)), "data.json"),
    "gcg": (chats.grandf, "GranDf_HA_GCG_train.json"),
    "osprey": (chats.osprey, "osprey_conversation.json"),
    "muse": (chats.muse, "MUSE_train.json"),
    "llava": (chats.llava, "llava_v1_5_mix665k.json"),
    "describe_anything": (chats.describe_anything, "annotations.json"),
    "grefcoco": (chats.grefcoco, "grefs(unc).json"),
    "reasonseg": (lambda folder: chats.reasonseg(folder) / "val", "1.json"),
}
CLIPS = {
    "sav": (clips.sav, "sav_000001_manual.json"),
    "ref_sav": (clips.ref_sav, "Ref-SAV.json"),
    "mevis": (clips.mevis, "meta_expressions.json"),
    "ref_youtube_vos": (clips.ref_youtube_vos, None),
    "davis": (clips.davis, None),
    "sav_val": (clips.sav_val, None),
}


def entries(folder: Path) -> list[Any]:
    phrases.picture(folder / "a.jpg")
    square = [[2, 2, 12, 2, 12, 22, 2, 22]]
    return [
        {"image": "a.jpg", "id": 4, "height": 30, "width": 40, "expressions": [
            {"text": ["a cup"], "masks": [square, phrases.rle(square)], "tags": ["x"], "id": 3}]}
    ]  # fmt: skip


def places(content: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value."""
    pairs = list(enumerate(content)) if isinstance(content, list) else list(getattr(content, "items", list)())
    return [*((content, key) for key, _ in pairs), *(place for _, value in pairs for place in places(value))]


def read_any(place: Path, format: str) -> None:
    """All of a data set of phrases or of clips."""
    if format in CLIPS:
        are_clips(place)
        read_whole(place, format)
    else:
        read_phrases(place, format, "all" if format in ("refcoco", "grefcoco") else None, False)


def one_line(read: Callable[[], object], folder: Path) -> None:
    """Read, or be told on one line with the name of something in the folder."""
    told = str(folder)
    try:
        read()
    except DataError as error:
        told = str(error)
    assert str(folder) in told or any(path.name in told for path in folder.rglob("*")), told
    assert len(told) < 1_500
    assert "\n" not in told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", [*PHRASES, "sav", "ref_sav", "mevis"])
def test_values_of_every_wrong_kind_in_every_place(format: str, tmp_path: Path) -> None:
    make, name = (PHRASES | CLIPS)[format]
    made = make(tmp_path / "set")
    file = next((tmp_path / "set").rglob(Path(str(name)).name))
    whole = file.read_text()
    random = Random(format)
    spots = range(len(places(json.loads(whole))))
    for spot in spots if len(spots) < 60 else random.sample(spots, 60):
        content = json.loads(whole)
        container, key = places(content)[spot]
        container[key] = random.choice(STRANGE)
        file.write_text(json.dumps(content))
        one_line(lambda: read_any(made, format), tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("format", [*PHRASES, *CLIPS])
def test_no_file_that_never_ends_is_opened(format: str, make: Any, tmp_path: Path) -> None:
    written = (PHRASES | CLIPS)[format][0](tmp_path / "set")
    files = [path for path in (tmp_path / "set").rglob("*") if path.suffix in (".p", ".json", ".png", ".mp4", ".jpg")]
    for file in {path.suffix: path for path in files}.values():
        content = file.read_bytes()
        file.unlink()
        make(file)
        with pytest.raises(DataError):
            read_any(written, format)
        file.unlink()
        file.write_bytes(content)


def test_a_pipe_given_itself(tmp_path: Path) -> None:
    for name in ("a.p", "a.json", "a.csv", "sav_000001_manual.json"):
        os.mkfifo(tmp_path / name)
        assert not are_clips(tmp_path / name)
        with pytest.raises(DataError, match="is a pipe"):
            read_refer(tmp_path / name)
        with pytest.raises(DataError, match="is a pipe"):
            read_clips(tmp_path / name)


# In a process of its own: a pickle that exhausts the stack kills the interpreter, and one may fill the memory.
PROGRAM = """
import resource, sys
from pathlib import Path
from deixis.data.refer_formats import read_refer
from deixis.errors import DataError
pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (1 << 30),) * 2)
folder = Path(sys.argv[1])
for content in sorted(Path(sys.argv[2]).iterdir()):
    (folder / "refs(unc).p").write_bytes(content.read_bytes())
    try:
        read_refer(folder, split="train")
        print(content.name, "was read")
    except DataError as error:
        if "refs(unc).p" not in str(error) or len(str(error)) > 1000 or isinstance(error.__cause__, MemoryError):
            print(content.name, str(error)[:300])
"""


def test_hostile_pickles_neither_run_nor_crash_nor_fill(tmp_path: Path) -> None:
    folder = phrases.refcoco(tmp_path / "set")
    (tmp_path / "pickles").mkdir()
    mine = {"memo as text": b"Np4294967295\n.", "memo": b"\x80\x02Nr\xff\xff\xff\x3f."}
    for name, content in (hostile_pickles() | mine).items():
        (tmp_path / "pickles" / name.replace(" ", "_")).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "pickles")],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_sound_pickles_of_every_protocol_pass_the_scan(protocol: int, tmp_path: Path) -> None:
    shared = ["left", "man"]
    content = [{"a": shared, "b": shared, "c": (1, 2.5, None), "n": 10**40, "t": "é" * 300, "y": b"\x00"}] * 3
    content += [{"number": i, "text": str(i)} for i in range(3_000)]
    data = pickle.dumps(content, protocol)
    assert fault_of_pickle(data) is None
    (tmp_path / "a.p").write_bytes(data)
    if protocol > 2:  # earlier ones build bytes by a call, which is refused
        assert load_plain_pickle(tmp_path / "a.p") == content
    assert fault_of_pickle(b")" + b"\x85" * (MAX_TUPLES + 1) + b".") is not None


def test_a_value_without_end_is_shown_in_a_few_words() -> None:
    doubled: list[Any] = []
    for _ in range(80):
        doubled = [doubled, doubled]
    assert len(shown(doubled)) <= 60
    assert len(shown("x" * 10**6)) <= 60


def test_ids_of_thousands_of_digits(tmp_path: Path) -> None:
    refs = [phrases.refcoco_reference(BIG, 1, 9, "train", "a man")]
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: reference number 1: ref_id must be a whole number"):
        read_refer(phrases.refcoco(tmp_path / "a", refs), split="train")
    file = clips.mevis(tmp_path / "b") / "meta_expressions.json"
    file.write_text(file.read_text().replace('"anno_id": [', f'"anno_id": [{BIG}, ', 1))
    with pytest.raises(DataError, match=r"meta_expressions\.json: .*ids must be whole numbers"):
        read_whole(file, "mevis")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    entry = entries(tmp_path / "a")
    (tmp_path / "a" / "a.jpg").rename(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.jpg"))
    entry[0]["image"] = "\udcff.jpg"
    read_phrases(phrases.plain(tmp_path / "a", entry), "refer_json", None, False)
    place = clips.sav_val(tmp_path / "b")
    (tmp_path / "b" / "Annotations_6fps" / "sav_000262" / "000" / "\udcff\udce9.png").write_bytes(b"")
    with pytest.raises(DataError, match="expected a whole number"):
        read_whole(place, "sav_val")


@pytest.mark.parametrize("size", [[-5, 9], [10**9, 10**9], [1e30, 2], ["30", "40"], [None, 40], [True, True]])
def test_sizes_that_no_picture_has(size: list[Any], tmp_path: Path) -> None:
    sa1b = phrases.sa1b(tmp_path / "sa", (1,))
    content = json.loads((sa1b / "sa_1.json").read_text())
    content["image"] |= {"height": size[0], "width": size[1]}
    (sa1b / "sa_1.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"sa_1\.json: the image has no height and width to use"):
        read_refer(sa1b)[0]
    refcoco = phrases.refcoco(tmp_path / "ref")
    content = json.loads((refcoco / "instances.json").read_text())
    for row in content["images"]:
        row |= {"height": size[0], "width": size[1]}
    (refcoco / "instances.json").write_text(json.dumps(content))
    if size[0] is not None:  # without a size, the picture's own is taken
        with pytest.raises(DataError, match="image 9: "):
            read_refer(refcoco, split="train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image.resize((9, 9)), r"is \(9, 9\), the frames are"),
        (lambda image: image.convert("RGB"), "has mode RGB"),
        (lambda image: image.convert("RGBA"), "has mode RGBA"),
        (lambda image: image.convert("L").convert("I;16"), "has mode I"),
    ],
)
@pytest.mark.parametrize("format", ["davis", "ref_youtube_vos", "sav_val"])
def test_label_maps_of_another_size_or_mode(format: str, change: Any, message: str, tmp_path: Path) -> None:
    place = CLIPS[format][0](tmp_path)
    file = sorted(tmp_path.rglob("*.png"))[0]
    change(Image.open(file)).save(file)
    with pytest.raises(DataError, match=f"{file.name}: {message}"):
        read_whole(place, format)


def test_a_label_map_of_a_huge_size_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = clips.davis(tmp_path)
    file = sorted(tmp_path.rglob("*.png"))[0]
    Image.new("P", (6_000, 5_000)).save(file)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"is \(5000, 6000\), the frames are"):
        read_clips(place, format="davis")[0]


class TestVideos:
    def test_frames_of_another_size_in_the_middle(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for pixels in clips.moving_bar(4):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
            other = av.CodecContext.create("libx264", "w")
            other.height, other.width, other.pix_fmt, other.time_base = 48, 64, "yuv420p", Fraction(1, 24)
            for number, pixels in enumerate([*clips.moving_bar(4, (48, 64)), None]):
                frame = None if pixels is None else av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if frame is not None:
                    frame.pts, frame.time_base = 10 + number, Fraction(1, 24)
                for packet in other.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
        frames = open_frames(tmp_path / "a.ts")
        with pytest.raises(DataError, match=r"a\.ts: frame \d is \(48, 64\), the first one \(32, 48\)"):
            list(frames)

    def test_a_stated_size_beyond_the_limit_allocates_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = clips.video(tmp_path / "a.mp4", clips.moving_bar(2), "libx264")
        monkeypatch.setattr("deixis.data.pixels.video_file.MAX_FRAME_PIXELS", 1000)
        with pytest.raises(DataError, match=r"a\.mp4: has frames of 48x32, at most 1000 pixels"):
            open_frames(file)

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_bytes_lost_in_the_middle(self, suffix: str, tmp_path: Path) -> None:
        file = clips.video(tmp_path / f"a{suffix}", clips.moving_bar(30), "libx264", gop=30)
        whole = file.read_bytes()
        for start in range(len(whole) // 4, 3 * len(whole) // 4, len(whole) // 9):
            file.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
            one_line(lambda: list(open_frames(file)), tmp_path)

    def test_no_frame_that_decoding_can_start_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = clips.video(tmp_path / "a.mp4", clips.moving_bar(3))
        monkeypatch.setattr("deixis.data.pixels.video_file.np.flatnonzero", lambda _: np.zeros(0, np.int64))
        with pytest.raises(DataError, match=r"a\.mp4: has no frame that decoding can start from"):
            open_frames(file)

    def test_sound_only_and_no_frames(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "sound.mkv"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.rate = 8000
            container.mux(stream.encode(frame))
        with pytest.raises(DataError, match=r"sound\.mkv: has no video stream"):
            open_frames(tmp_path / "sound.mkv")
        with av.open(str(tmp_path / "none.mkv"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
            container.mux(stream.encode())
        with pytest.raises(DataError, match=r"none\.mkv: "):
            open_frames(tmp_path / "none.mkv")
