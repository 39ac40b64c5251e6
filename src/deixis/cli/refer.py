"""`deixis refer train | eval | predict | track | memory | new`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.cli.detect import relaunch
from deixis.options.refer_eval import ReferEvalOptions
from deixis.options.refer_memory import ReferMemoryOptions
from deixis.options.refer_new import ReferNewOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.options.refer_track import ReferTrackOptions
from deixis.options.refer_train import ReferTrainOptions

TRAIN_EXAMPLES = """
Examples:
  deixis refer train --data phrases.json --images photos/ --model ByteDance/Sa2VA-1B
  deixis refer train --refcoco-dir refcoco/ --model ByteDance/Sa2VA-4B --lora-r 64 --precision bf16
  deixis refer train --data phrases.json --model OpenGVLab/InternVL3-1B-hf --sam-model facebook/sam2.1-hiera-large
  deixis refer train --data "scenes:split=refer_train,count=400,seed=1" --model new_segmenter --quick
  deixis refer train --config runs/segmenter/config.yaml --resume

Without --val-data and --test-data, a tenth of the images chooses the best epoch and, of 100 images or more, figures are
reported on another tenth; of fewer, figures are optimistic.
Results go to OUTPUT/EXPERIMENT_NAME: checkpoints/best, checkpoints/last, teachers/sa2va, metrics.jsonl, result.json,
config.yaml, tensorboard/, report.html. With --seeds 3 each has a folder there, beside seeds.json and seeds.html.
Several GPUs: --gpus 4, or torchrun ... -m deixis refer train ... Exit codes: 0 done, 2 an error told in one line, 130
interrupted, 143 stopped by SIGTERM after saving checkpoints/last.
"""

EVAL_EXAMPLES = """
Examples:
  deixis refer eval --model runs/segmenter/teachers/sa2va --data phrases.json --images photos/
  deixis refer eval --model new_segmenter --data "scenes:split=refer_unseen,count=100,seed=3" --generate
"""

PREDICT_EXAMPLES = """
Examples:
  deixis refer predict --images photos/ --phrases "the dog on the left" "the red car" --model ByteDance/Sa2VA-1B
  deixis refer predict --images a.jpg --phrases "a cat" --model runs/segmenter/teachers/sa2va --output found/
"""

TRACK_EXAMPLES = """
Examples:
  deixis refer track --video clip.mp4 --phrases "the dog on the left" --model ByteDance/Sa2VA-4B
  deixis refer track --video frames/ --phrases "a bird flying away" --model ByteDance/Sa2VA-4B --prompts first
  deixis refer track --video clip.mp4 --phrases "the ball" --model runs/segmenter/teachers/sa2va --prompt-every 20 \\
    --sam-model facebook/sam2-hiera-large
  deixis refer track --data DAVIS#val --model ByteDance/Sa2VA-4B --frame-by-frame --output measured/
  deixis refer track --data "scenes:split=clip_seen,count=16,seed=77" --frame-by-frame
"""

MEMORY_EXAMPLES = """
Examples:
  deixis refer memory --model new_segmenter --data "scenes:split=clip_train,count=400,seed=1" --output tracker
  deixis refer memory --model runs/segmenter/teachers/sa2va --data sav_train/sav_000 --learning-rate 1e-5
"""

NEW_EXAMPLES = """
Examples:
  deixis refer new --output new_segmenter
  deixis refer train --model new_segmenter --data "scenes:split=refer_train,count=400,seed=1" --max-tiles 1
"""


def train(arguments: Sequence[str]) -> int:
    """Fine-tune a segmenter; with several GPUs, through torchrun."""
    options = parse(ReferTrainOptions, arguments, "refer train", TRAIN_EXAMPLES)
    options.check()
    from deixis.recipes.refer.train import check_inputs, finetune_segmenter
    from deixis.recipes.run.devices import require_gpus

    if options.gpus is not None and "LOCAL_RANK" not in os.environ:
        require_gpus(options.gpus)
        if options.gpus > 1:
            check_inputs(options)
            relaunch(options.gpus, ["refer", "train", *arguments])
    if options.seeds > 1:
        from deixis.recipes.run.repeat import repeat_run

        repeat_run(options, finetune_segmenter, ("gIoU", "cIoU"))
        return 0
    finetune_segmenter(options)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Measure a segmenter."""
    options = parse(ReferEvalOptions, arguments, "refer eval", EVAL_EXAMPLES)
    options.check()
    from deixis.recipes.refer.evaluate import evaluate_segmenter

    evaluate_segmenter(options)
    return 0


def predict(arguments: Sequence[str]) -> int:
    """Find what phrases mean in pictures."""
    options = parse(ReferPredictOptions, arguments, "refer predict", PREDICT_EXAMPLES)
    options.check()
    from deixis.recipes.refer.predict import predict_segmenter

    predict_segmenter(options)
    return 0


def track(arguments: Sequence[str]) -> int:
    """Follow what phrases mean through a video, or measure it on annotated clips."""
    options = parse(ReferTrackOptions, arguments, "refer track", TRACK_EXAMPLES)
    options.check()
    if options.data is not None:
        from deixis.recipes.refer.measure_tracks import measure_tracks

        measure_tracks(options)
        return 0
    from deixis.recipes.refer.track import track_video

    track_video(options)
    return 0


def memory(arguments: Sequence[str]) -> int:
    """Train a segmenter's memory on clips."""
    options = parse(ReferMemoryOptions, arguments, "refer memory", MEMORY_EXAMPLES)
    options.check()
    from deixis.recipes.refer.memory import train_memory_of

    train_memory_of(options)
    return 0


def new(arguments: Sequence[str]) -> int:
    """Write a small segmenter with random weights."""
    options = parse(ReferNewOptions, arguments, "refer new", NEW_EXAMPLES)
    from deixis.recipes.refer.new import new_segmenter

    new_segmenter(options)
    return 0
