"""Our augmentation beside albumentations 2.0.8, the last release under a free licence: boxes exactly, pixels nearly."""

from __future__ import annotations

import numpy as np
import pytest

from deixis.data.detect.augment import blurred, compressed, relit, tinted, turn
from deixis.data.detect.transforms import crop, horizontal_flip, resize_to
from deixis.records import Instances, Sample, Vocabulary

BOXES = [[3.0, 5, 40, 15], [0, 0, 64, 48], [20.5, 8.25, 30, 44], [50, 30, 64, 48]]


@pytest.fixture(scope="module")
def theirs():
    """albumentations, which asks the package index for newer releases when it is imported unless told not to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
        yield pytest.importorskip("albumentations", reason="albumentations is absent; install deixis[dev]")


@pytest.fixture(scope="module")
def sample():
    rows, columns = np.mgrid[:48, :64]
    smooth = np.stack([rows * 5, columns * 4, (rows + columns) * 2], -1)
    noise = np.random.default_rng(0).integers(0, 20, (48, 64, 3))
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return Sample(pixels, (48, 64), Instances.build(BOXES, [0, 1, 0, 1]), Vocabulary(("cat", "dog")))


def run(theirs, transform, sample):
    """(pixels, boxes) of their transform."""
    boxes = theirs.BboxParams(format="pascal_voc", label_fields=[])
    found = theirs.Compose([transform], bbox_params=boxes, seed=0)(
        image=sample.image, bboxes=sample.instances.boxes_xyxy_px
    )
    return found["image"], np.asarray(found["bboxes"])


def assert_same_boxes(ours, boxes):
    """Theirs pass through float32 shares of the image."""
    np.testing.assert_allclose(ours.instances.boxes_xyxy_px, boxes, atol=1e-4, rtol=0)


def test_a_flip(theirs, sample):
    ours = horizontal_flip(sample)
    pixels, boxes = run(theirs, theirs.HorizontalFlip(p=1), sample)
    assert np.array_equal(ours.image, pixels)
    assert_same_boxes(ours, boxes)
    with pytest.raises(AssertionError):  # one pixel off, as in libraries that count to width - 1
        assert_same_boxes(ours, boxes - [1, 0, 1, 0])


def test_quarter_turns(theirs, sample):
    seen = set()
    for seed in range(16):
        rotate = theirs.Compose(
            [theirs.RandomRotate90(p=1)],
            bbox_params=theirs.BboxParams(format="pascal_voc", label_fields=[]),
            seed=seed,
        )
        found = rotate(image=sample.image, bboxes=sample.instances.boxes_xyxy_px)
        (quarters,) = [k for k in range(4) if np.array_equal(turn(sample, k).image, found["image"])]
        assert_same_boxes(turn(sample, quarters), np.asarray(found["bboxes"]))
        seen.add(quarters)
    assert seen == {0, 1, 2, 3}


def test_a_crop_and_a_resize(theirs, sample):
    window = (10, 6, 60, 40)
    pixels, boxes = run(theirs, theirs.Crop(*window), sample)
    ours = crop(sample, window, min_visible=0.0)
    assert np.array_equal(ours.image, pixels)
    assert_same_boxes(ours, boxes)
    _, boxes = run(theirs, theirs.Resize(96, 100), sample)
    assert_same_boxes(resize_to(sample, (96, 100)), boxes)


@pytest.mark.parametrize(("contrast", "brightness"), [(0.75, -30.6), (1.2, 25.5), (1.0, 0.0)])
def test_brightness_and_contrast(theirs, sample, contrast, brightness):
    limits = {"contrast_limit": (contrast - 1,) * 2, "brightness_limit": (brightness / 255,) * 2}
    pixels, boxes = run(theirs, theirs.RandomBrightnessContrast(**limits, ensure_safe_range=False, p=1), sample)
    assert_close(relit(sample.image, contrast, brightness), pixels, 1)
    assert_same_boxes(sample, boxes)


def test_hue(theirs, sample):
    limits = {"sat_shift_limit": (0, 0), "val_shift_limit": (0, 0)}
    pixels, _ = run(theirs, theirs.HueSaturationValue(hue_shift_limit=(5, 5), **limits, p=1), sample)
    assert_close(tinted(sample.image, 10, 1.0), pixels, 1)


def test_saturation(theirs, sample):
    """Theirs blends with grey, ours scales HSV's saturation: the same direction, not the same values."""
    one = (1.0, 1.0)
    jitter = theirs.ColorJitter(brightness=one, contrast=one, hue=(0, 0), saturation=(0.5, 0.5), p=1)
    pixels, _ = run(theirs, jitter, sample)
    spread, theirs_spread, before = (
        np.ptp(each.astype(int), axis=-1).mean() for each in (tinted(sample.image, 0, 0.5), pixels, sample.image)
    )
    assert spread == pytest.approx(theirs_spread, rel=0.25)
    assert spread < 0.8 * before


@pytest.mark.parametrize("sigma", [0.5, 1.4])
def test_blur(theirs, sample, sigma):
    pixels, _ = run(theirs, theirs.GaussianBlur(blur_limit=0, sigma_limit=(sigma, sigma), p=1), sample)
    assert_close(blurred(sample.image, sigma), pixels, 3)
    assert np.abs(sample.image.astype(int) - pixels).max() > 3


@pytest.mark.parametrize("quality", [40, 90])
def test_jpeg(theirs, sample, quality):
    pixels, _ = run(theirs, theirs.ImageCompression(quality_range=(quality, quality), p=1), sample)
    ours = compressed(sample.image, quality)
    assert np.abs(ours.astype(int) - pixels).mean() < 4, "theirs takes red for blue, which JPEG weighs differently"


def assert_close(ours, theirs, most):
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=most, rtol=0)
