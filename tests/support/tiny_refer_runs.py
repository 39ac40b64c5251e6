"""Whole segmenter runs small enough for a test: random parameters, a dozen generated scenes."""

from __future__ import annotations

from pathlib import Path

from small_segmenters import tiny_segmenter

from deixis.models.sa2va import save_sa2va

TRAIN_SCENES = "scenes:split=refer_train,count=8,seed=1"
VAL_SCENES = "scenes:split=refer_seen,count=3,seed=2"


def write_tiny_segmenter(folder: Path, seed: int = 0) -> Path:
    """A random segmenter's folder."""
    save_sa2va(tiny_segmenter(seed), folder)
    return folder


def refer_arguments(model: Path, output: Path, *more: str) -> list[str]:
    """`deixis refer train` on eight scenes: four steps an epoch, adapters with dropout."""
    return [
        *("refer", "train", "--data", TRAIN_SCENES, "--val-data", VAL_SCENES, "--model", str(model)),
        *("--output", str(output), "--experiment-name", "segmenter"),
        *("--num-workers", "0", "--gpus", "0", "--report-images", "1", "--lora-r", "4"),
        *("--mask-points", "64", "--max-tiles", "1", *more),
    ]
