"""Whole runs small enough for a test: a detector of 0.2 million random parameters, a dozen generated scenes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import warm_processes
from PIL import Image
from transformers import BertConfig, MMGroundingDinoConfig, SwinConfig

from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.models.grounding_dino.small import small_tokenizer

TIMING_FIELDS = ("images_per_second", "peak_memory_mb", "seconds", "data_wait_share", "data_wait_most")
"""Of the log; they differ between two equal runs."""
TRAIN_SCENES = "scenes:split=demo_train,count=12,seed=1"
VAL_SCENES = "scenes:split=demo_val,count=4,seed=2"
EVERYTHING = (
    *("--recipe", "large", "--text-lr-factor", "1", "--learning-rate", "4e-4", "--ema-decay", "0.999"),
    *("--no-baseline", "--no-report"),
)
"""Options with which every part of a detector trains, all of them as fast."""


def write_tiny_model(
    folder: Path,
    seed: int = 0,
    width: int = 32,
    dropout: float = 0.1,
    words: Sequence[str] = ("star", "fish", "house"),
    inner: int = 32,
) -> Path:
    """A random detector's folder; with dropout everywhere, so that randomness that is not seeded would show.

    Args:
        inner: channels inside the encoder's feed-forward layers, and twice those inside its fusion.
    """
    torch.manual_seed(seed)
    tokenizer = small_tokenizer(list(words))
    config = MMGroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=16,
            depths=[1, 1, 1],
            num_heads=[1, 2, 2],
            window_size=4,
            drop_path_rate=dropout,
            out_features=["stage2", "stage3"],
        ),
        text_config=BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=256,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        ),
        num_feature_levels=2,
        d_model=width,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=inner,
        decoder_ffn_dim=32,
        num_queries=10,
        max_text_len=256,
        dropout=dropout,
        fusion_dropout=dropout,
        fusion_droppath=dropout,
    )
    save_grounding_dino(init_bundle(config, tokenizer, (64, 96)), folder)
    return folder


def train_arguments(model: Path, output: Path, *more: str) -> list[str]:
    """`deixis detect train` on a dozen scenes: three steps an epoch."""
    return [
        *("detect", "train", "--data", TRAIN_SCENES, "--val-data", VAL_SCENES, "--model", str(model)),
        *("--output", str(output), "--experiment-name", "detector"),
        *("--workers", "0", "--gpus", "0", "--report-images", "1", *more),
    ]


def environment() -> dict[str, str]:
    """One thread a process: sums of floats depend on how many there are. No Java: METEOR's loads for ten seconds."""
    path = f"{Path(__file__).parent / 'without_java'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(arguments: list[str], new_session: bool = False) -> warm_processes.WarmProcess:
    """The command in a process of its own."""
    return warm_processes.start(["-m", "deixis", *arguments], environment(), new_session)


def run_program(*words: object, processes: int = 1, code: int = 0) -> str:
    """`python WORDS` in processes that train together; what they printed, once all have ended with the code."""
    found, out, err = warm_processes.run_together(words, environment(), processes)
    assert found == code, f"exit code {found}\n{out}\n{err}"
    return out


def finish(process: Any, code: int = 0, timeout_s: float = 300) -> tuple[str, str]:
    """Wait for the command; its stdout and stderr, once it has ended with the code."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def records(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """The log of a run without the fields that differ between two equal runs; only some kinds, where given."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    parsed = [json.loads(line) for line in lines]
    chosen = [record for record in parsed if not kinds or record["kind"] in kinds]
    return [{key: value for key, value in record.items() if key not in TIMING_FIELDS} for record in chosen]


def write_coco(folder: Path, count: int = 6, **changes: Any) -> Path:
    """A small COCO data set of noise with one box an image; `changes` replace whole sections of the file."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = generator.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40} for i in range(count)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200, "iscrowd": 0}
            for i in range(count)
        ],
        "categories": [{"id": 1, "name": "star"}],
    }
    (folder / "labels.json").write_text(json.dumps({**content, **changes}))
    return folder / "labels.json"
