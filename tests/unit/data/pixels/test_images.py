"""Decoding: whatever the file holds comes out as upright uint8 RGB, or as one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.pixels.images import image_sizes_hw, load, load_image
from deixis.errors import DataError
from deixis.records import Instances, Sample, Vocabulary

ORIENTATION = 0x0112
# How a viewer's picture is stored under each EXIF orientation (Exif 2.32, tag 0x0112), written out independently.
STORED = {
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: np.swapaxes(seen, 0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.swapaxes(np.rot90(seen, 2), 0, 1),
    8: lambda seen: np.rot90(seen, -1),
}


def quadrants(height: int = 10, width: int = 40) -> np.ndarray:
    """Four corners of different colour: no flip or turn leaves it as it is."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (250, 10, 10)
    picture[: height // 2, width // 2 :] = (10, 250, 10)
    picture[height // 2 :, : width // 2] = (10, 10, 250)
    return picture


def save_oriented(path: Path, seen: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](seen))).save(path, exif=exif)
    return path


def sample_of(path: Path, size_hw: tuple[int, int]) -> Sample:
    instances = Instances.build([[0, 0, 40, 10]], [0])
    return Sample(path, size_hw, instances, Vocabulary(("thing",)), source="labels.json: image 7")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = save_oriented(tmp_path / f"turned{suffix}", quadrants(), orientation)
    np.testing.assert_array_equal(load_image(path), quadrants())
    assert image_sizes_hw(path)[0] == (10, 40)


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    path = save_oriented(tmp_path / "turned.jpg", quadrants(80, 320), 6)
    pixels = load_image(path)
    assert pixels.shape == (80, 320, 3)
    assert np.abs(pixels[10, 10].astype(int) - (250, 10, 10)).max() < 12
    assert image_sizes_hw(path) == ((80, 320), (320, 80))


def test_unknown_orientation_is_left_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 99
    Image.fromarray(quadrants()).save(tmp_path / "odd.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "odd.png"), quadrants())


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = np.arange(40, dtype=np.uint8).reshape(4, 10)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=2))


def test_16_bit_grey_is_scaled_by_its_full_range(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for name in ("wide.png", "wide.tif"):
        Image.fromarray(wide).save(tmp_path / name)
        np.testing.assert_array_equal(load_image(tmp_path / name)[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 200.0], [0, 100, 200]), ([-1e6, 0.0, 1e6], [0, 128, 255])],
)
def test_float_grey(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "float.tif")[0, :, 0], expected)


def test_float_grey_that_is_not_finite(tmp_path: Path) -> None:
    Image.fromarray(np.array([[np.nan, 1]], np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="not finite"):
        load_image(tmp_path / "nan.tif")


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(load_image(tmp_path / "alpha.png")[0], [[255] * 3, [200, 0, 0], [204] * 3])
    Image.fromarray(np.array([[[7, 0], [7, 255]]], np.uint8), mode="LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(load_image(tmp_path / "la.png")[0, :, 0], [255, 7])


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "plain.png")
    np.testing.assert_array_equal(load_image(tmp_path / "plain.png")[0], [[1, 2, 3], [40, 50, 60]])
    palette.save(tmp_path / "clear.png", transparency=0)
    np.testing.assert_array_equal(load_image(tmp_path / "clear.png")[0], [[255] * 3, [40, 50, 60]])


def test_cmyk_and_one_bit(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    assert np.abs(load_image(tmp_path / "red.jpg")[8, 8].astype(int) - (255, 0, 0)).max() < 6
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(load_image(tmp_path / "bit.png")[0, :, 1], [255, 0])


def one_line(error: BaseException, *parts: str) -> None:
    text = str(error)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_missing_file() -> None:
    with pytest.raises(DataError) as caught:
        load_image("no/such/cat.jpg")
    one_line(caught.value, "no/such/cat.jpg", "not found", "check")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    damaged = tmp_path / f"half{suffix}"
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        load_image(damaged)
    one_line(caught.value, f"half{suffix}", "damaged", "replace or remove")


@pytest.mark.parametrize(
    "content", [b"", b"not an image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe1"]
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.jpg"
    path.write_bytes(content)
    for read in (load_image, image_sizes_hw):
        with pytest.raises(DataError) as caught:
            read(path)
        one_line(caught.value, "junk.jpg", "cannot decode")
    with pytest.raises(DataError, match="cannot open"):
        load_image(tmp_path)


def test_too_many_pixels_is_an_error_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(quadrants()).save(tmp_path / "vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="tiles"):
        load_image(tmp_path / "vast.png")


def test_load_uses_the_upright_frame(tmp_path: Path) -> None:
    path = save_oriented(tmp_path / "turned.png", quadrants(), 6)
    loaded = load(sample_of(path, (10, 40)))
    np.testing.assert_array_equal(loaded.image, quadrants())
    np.testing.assert_array_equal(loaded.instances.boxes_xyxy_px, [[0, 0, 40, 10]])


def test_load_keeps_the_stored_frame_where_only_that_was_annotated(tmp_path: Path) -> None:
    path = save_oriented(tmp_path / "turned.png", quadrants(), 6)
    loaded = load(sample_of(path, (40, 10)))
    np.testing.assert_array_equal(loaded.image, STORED[6](quadrants()))


def test_load_names_both_sizes_when_they_disagree(tmp_path: Path) -> None:
    path = save_oriented(tmp_path / "cat.png", quadrants(), 1)
    with pytest.raises(DataError) as caught:
        load(sample_of(path, (12, 40)))
    one_line(caught.value, "labels.json: image 7", "cat.png", "40x10", "40x12")
    with pytest.raises(DataError):  # 40x10 turned is no match without EXIF saying so
        load(sample_of(path, (40, 10)))


def test_load_leaves_decoded_samples_alone() -> None:
    sample = Sample(quadrants(), (10, 40), Instances.none(), Vocabulary(("thing",)))
    assert load(sample) is sample


def test_draft_decoding_shrinks_boxes_with_the_picture(tmp_path: Path) -> None:
    Image.fromarray(quadrants(400, 1600)).save(tmp_path / "large.jpg")
    instances = Instances.build([[800, 200, 1600, 400]], [0])
    sample = Sample(tmp_path / "large.jpg", (400, 1600), instances, Vocabulary(("thing",)))
    loaded = load(sample, min_short_px=100)
    assert loaded.size_hw == (100, 400)
    assert loaded.original_size_hw == (400, 1600)
    np.testing.assert_allclose(loaded.instances.boxes_xyxy_px, [[200, 50, 400, 100]])
    assert load(sample, min_short_px=101).size_hw == (200, 800)  # never below the short side asked for
    assert load(sample, min_short_px=5000).size_hw == (400, 1600)


def test_real_photographs_decode_to_their_annotated_size(shared_data: Path) -> None:
    path = shared_data / "raccoon_voc" / "images" / "raccoon-1.jpg"
    assert load_image(path).shape == (417, 650, 3)


def photograph(folder: Path, mode: str = "RGB", size_hw: tuple[int, int] = (121, 95)) -> Path:
    """A JPEG with odd sides and smooth content, as sub-sampled colours want it."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    pixels = np.stack([127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7), (x + y) % 256], -1).astype(np.uint8)
    path = folder / f"{mode}.jpg"
    Image.fromarray(pixels).convert(mode).save(path, quality=92)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_decode_to_pillows_pixels(tmp_path: Path, mode: str) -> None:
    path = photograph(tmp_path, mode)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("min_short_px", "share"), [(96, 1), (48, 1), (47, 2), (23, 4), (11, 8), (1, 8), (0, 8)])
def test_draft_decoding_keeps_the_short_side_it_was_asked_for(tmp_path: Path, min_short_px: int, share: int) -> None:
    path = photograph(tmp_path)
    with Image.open(path) as image:
        image.draft("RGB", (image.width // share, image.height // share))
        np.testing.assert_array_equal(load_image(path, min_short_px), np.asarray(image))


def test_bytes_behind_a_jpeg_do_not_matter(tmp_path: Path) -> None:
    path = photograph(tmp_path)
    whole = load_image(path)
    path.write_bytes(path.read_bytes() + b"trailer of some camera")
    np.testing.assert_array_equal(load_image(path), whole)
