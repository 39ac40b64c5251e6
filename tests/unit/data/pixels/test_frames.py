"""Frames from video files, folders and arrays: every number is the frame it says, damage is one clear line."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from clip_miniatures import moving_bar, video
from PIL import Image

from deixis.data.pixels.frames import ArrayFrames, ImageFrames, open_frames
from deixis.data.pixels.mp4_boxes import check_boxes
from deixis.data.pixels.video_file import VideoFrames
from deixis.errors import DataError
from deixis.video_records import Frames

COUNT = 40


def numbers(pixels: np.ndarray) -> int:
    """Which frame of `moving_bar` a decoded one is."""
    distances = [np.abs(frame.astype(int) - pixels.astype(int)).mean() for frame in moving_bar(COUNT)]
    assert min(distances) < 12, "lossy coding may not hide which frame it is"
    return int(np.argmin(distances))


def folder(path: Path, count: int = 4) -> Path:
    path.mkdir()
    for i, frame in enumerate(moving_bar(count)):
        Image.fromarray(frame).save(path / f"{i:05}.png")
    return path


class TestVideoFrames:
    @pytest.mark.parametrize(
        ("name", "codec", "bframes"),
        [("a.mp4", "mpeg4", 0), ("a.mp4", "libx264", 3), ("a.mkv", "libx264", 3), ("a.avi", "mpeg4", 0)],
    )
    def test_every_number_is_its_frame_forwards_backwards_and_across_key_frames(
        self, tmp_path: Path, name: str, codec: str, bframes: int
    ) -> None:
        frames = open_frames(video(tmp_path / name, moving_bar(COUNT), codec, gop=7, bframes=bframes))
        assert isinstance(frames, Frames)
        assert (len(frames), frames.size_hw) == (COUNT, (32, 48))
        assert [numbers(pixels) for pixels in frames] == list(range(COUNT))
        asked = [39, 0, 5, 6, 7, 8, 20, 20, 3, 38]
        assert [numbers(pixels) for pixels in frames.read(asked)] == asked
        assert [numbers(frames[i]) for i in (13, 14, 0, 39)] == [13, 14, 0, 39]

    def test_frames_of_unequal_duration_are_counted_not_timed(self, tmp_path: Path) -> None:
        path = tmp_path / "phone.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            at = 0
            for i, pixels in enumerate(moving_bar(COUNT)):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, at = at, at + (1 if i % 3 else 5)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        frames = VideoFrames(path)
        assert [numbers(frames[i]) for i in (0, 17, 39)] == [0, 17, 39]

    def test_a_film_taken_sideways_is_turned_upright(self, tmp_path: Path) -> None:
        picture = np.zeros((3, 32, 48, 3), np.uint8)
        picture[:, :, :24] = 255  # bright on the left
        path = video(tmp_path / "phone.mp4", picture)
        content = path.read_bytes()
        plain = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
        clockwise = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        header = content.index(b"tkhd")
        at = content.index(plain, header)
        path.write_bytes(content[:at] + clockwise + content[at + len(plain) :])
        frames = VideoFrames(path)
        assert frames.size_hw == (48, 32)
        assert frames[1][:20].min() > 200
        assert frames[1][28:].max() < 50

    def test_a_jump_decodes_from_the_last_key_frame_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        frames = VideoFrames(video(tmp_path / "a.mp4", moving_bar(COUNT), gop=10))
        assert frames.index.key_frames.tolist() == [0, 10, 20, 30]
        decoded = []
        real = VideoFrames._frame

        def counting(self: VideoFrames, source, number: int) -> np.ndarray:  # type: ignore[no-untyped-def]
            return real(self, (decoded.append(frame.pts) or frame for frame in source), number)

        monkeypatch.setattr(VideoFrames, "_frame", counting)
        list(frames.read([33, 35]))
        assert len(decoded) == 6, "30 to 35"

    def test_a_cut_file_says_so(self, tmp_path: Path) -> None:
        path = video(tmp_path / "cut.mkv", moving_bar(COUNT))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        short = VideoFrames(path)
        assert 0 < len(short) < COUNT, "Matroska states no count, so what is left counts"
        path = video(tmp_path / "cut.mp4", moving_bar(COUNT))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match=r"cut\.mp4: cannot be read as a video .*get the file again"):
            open_frames(path)

    def test_a_cut_file_with_its_index_in_front_says_where_it_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.mp4"
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("mpeg4", rate=24)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for pixels in moving_bar(COUNT):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(DataError, match=r"cut\.mp4: ends after \d+ of 40 frames; the file is cut off"):
            len(VideoFrames(path))

    def test_a_damaged_frame_is_named(self, tmp_path: Path) -> None:
        path = video(tmp_path / "bad.mp4", moving_bar(COUNT), "libx264", gop=1)
        content = bytearray(path.read_bytes())
        middle = content.index(b"mdat") + 4 + (content.index(b"moov") - content.index(b"mdat")) // 2
        content[middle : middle + 600] = b"\xff" * 600
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.mp4: frame \d+ of 40 cannot be decoded"):
            list(VideoFrames(path))

    @pytest.mark.parametrize(
        ("box", "at", "number", "message"),
        [
            (b"avc1", -4, 1 << 30, r"box 'avc1' states 1073741824 bytes where \d+ are left"),
            (b"stts", -4, 4000, r"box 'stts' states 4000 bytes where \d+ are left"),
            (b"stbl", -4, 0x7FFFFFF0, r"box 'stbl' states 2147483632 bytes where \d+ are left"),
            (b"moov", -4, 0x7FFFFFF0, r"box 'moov' states 2147483632 bytes where \d+ are left"),
            (b"stsz", 12, 0x0FFFFFFF, r"table 'stsz' states 268435455 entries, there is room for 8"),
            (b"stss", 8, 0x0FFFFFFF, r"table 'stss' states 268435455 entries, there is room for 2"),
            (b"stts", 8, 0x0FFFFFFF, r"table 'stts' states 268435455 entries, there is room for \d"),
        ],
    )
    def test_lengths_that_do_not_fit_are_found_before_they_are_allocated(
        self, tmp_path: Path, box: bytes, at: int, number: int, message: str
    ) -> None:
        file = video(tmp_path / "a.mp4", moving_bar(8), "libx264", gop=4)
        data = bytearray(file.read_bytes())
        struct.pack_into(">I", data, data.rindex(box) + at, number)  # `avc1` is a brand of the file too
        file.write_bytes(data)
        with pytest.raises(DataError, match=rf"a\.mp4: damaged: its {message}; get the file again"):
            _ = open_frames(file).size_hw

    def test_memory_that_is_not_there_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What FFmpeg does with such a length when nothing looks before it."""
        file = video(tmp_path / "a.mp4", moving_bar(8), "libx264")
        data = bytearray(file.read_bytes())
        struct.pack_into(">I", data, data.index(b"stss") + 8, 0x0FFFFFFF)
        file.write_bytes(data)
        code = (
            "import resource, sys\nfrom pathlib import Path\nimport deixis.data.pixels.video_file as module\n"
            "module.check_boxes = lambda path: None\n"
            "pages = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (pages + (512 << 20),) * 2)\n"
            "print(len(module.VideoFrames(Path(sys.argv[1]))))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
        assert "a.mp4: its headers ask for more memory than there is; it is probably damaged" in done.stderr

    def test_boxes_of_files_that_play_are_passed(self, tmp_path: Path) -> None:
        """A 64-bit length, a last box without one, a list that ends with zeros, a file of another kind, one cut off."""
        file = video(tmp_path / "a.mp4", moving_bar(8), "libx264")
        data = file.read_bytes()
        check_boxes(file)
        long = struct.pack(">I4sQ", 1, b"free", 24) + b"12345678"
        for content in (
            data + long,
            data + b"\0\0\0\0free" + b"anything",
            data + b"\0\0\0\0",
            b"\x1aE\xdf\xa3" + data,
            b"",
            data[: data.index(b"mdat") + 40],
        ):
            file.write_bytes(content)
            check_boxes(file)

    def test_what_is_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_text("no video")
        with pytest.raises(DataError, match=r"a\.mp4: cannot be read as a video"):
            open_frames(tmp_path / "a.mp4")
        (tmp_path / "c.jpg").write_bytes(b"a picture")
        with pytest.raises(DataError, match=r"c\.jpg: a picture is no video"):
            open_frames(tmp_path / "c.jpg")
        with pytest.raises(DataError, match=r"b\.mp4: no such video file"):
            open_frames(tmp_path / "b.mp4")
        with pytest.raises(DataError, match=r"b\.mp4: video file not found"):
            len(VideoFrames(tmp_path / "b.mp4"))

    def test_it_pickles_and_numbers_outside_are_refused(self, tmp_path: Path) -> None:
        frames = VideoFrames(video(tmp_path / "a.mp4", moving_bar(3)))
        again = pickle.loads(pickle.dumps(frames))  # noqa: S301
        np.testing.assert_array_equal(again[2], frames[2])
        for outside in (3, -1):
            with pytest.raises(IndexError, match="of 3"):
                frames[outside]

    def test_a_real_video(self, shared_data: Path) -> None:
        frames = open_frames(shared_data / "demo_photos" / "sam2_04_coffee.mp4")
        first, again = frames[0], next(iter(frames))
        assert first.shape == (*frames.size_hw, 3)
        np.testing.assert_array_equal(first, again)
        ahead = next(frames.read([37]))
        for number, pixels in enumerate(frames.read(range(38))):
            if number == 37:
                np.testing.assert_array_equal(pixels, ahead)


class TestImageFrames:
    def test_in_order_of_names(self, tmp_path: Path) -> None:
        place = tmp_path / "clip"
        place.mkdir()
        pictures = moving_bar(12)
        for i, frame in enumerate(pictures):
            Image.fromarray(frame).save(place / f"{i}.png")  # 10.png sorts before 2.png as text
        frames = open_frames(place)
        np.testing.assert_array_equal(np.stack(list(frames)), pictures)
        np.testing.assert_array_equal(np.stack(list(frames.read([7, 2]))), pictures[[7, 2]])

    def test_a_missing_frame(self, tmp_path: Path) -> None:
        frames = open_frames(folder(tmp_path / "clip"))
        (tmp_path / "clip" / "00002.png").unlink()
        assert len(list(frames.read([0, 1, 3]))) == 3
        with pytest.raises(DataError, match=r"00002\.png: frame 2 of 4 is missing"):
            list(frames)

    def test_a_frame_of_another_size(self, tmp_path: Path) -> None:
        frames = open_frames(folder(tmp_path / "clip"))
        Image.new("RGB", (9, 9)).save(tmp_path / "clip" / "00001.png")
        with pytest.raises(DataError, match=r"00001\.png: frame 1 is \(9, 9\), the first one \(32, 48\)"):
            frames[1]

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no image files in it"):
            open_frames(tmp_path)
        with pytest.raises(DataError, match="at least one frame"):
            ImageFrames(())


def test_frames_in_memory() -> None:
    pictures = moving_bar(5)
    frames = ArrayFrames(pictures)
    assert isinstance(frames, Frames)
    assert (len(frames), frames.size_hw) == (5, (32, 48))
    np.testing.assert_array_equal(np.stack(list(frames)), pictures)
    np.testing.assert_array_equal(np.stack(list(frames.read([4, 0]))), pictures[[4, 0]])
    with pytest.raises(DataError, match="at least one frame"):
        ArrayFrames(pictures[:0])
