"""`deixis detect train | eval | predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_new import DetectNewOptions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.detect_train import DetectTrainOptions

TRAIN_EXAMPLES = """
Examples:
  deixis detect train --data labels.json --images photos/ --model IDEA-Research/grounding-dino-tiny
  deixis detect train --data annotations/ --images images/ --lora --experiment-name raccoons
  deixis detect train --data coco.json captions.jsonl --data-weights 2 1 --val-data val.json
  deixis detect train --config run.yaml --epochs 5          values from a file, a flag on top
  deixis detect train --config runs/raccoons/config.yaml --resume
  deixis detect train --data train.json --val-data val.json --test-data test.json --seeds 3
  deixis detect train --config run.yaml --gpus 4            or: torchrun ... -m deixis detect train ...

Without --val-data and --test-data, 100 images or more are split in three: 70 % train, 15 % choose the best epoch, and
figures are reported on the other 15 %. Of fewer, a fifth is held out, and figures are optimistic.
Results go to OUTPUT/EXPERIMENT_NAME: checkpoints/best, checkpoints/last, teachers/, metrics.jsonl, result.json,
config.yaml, tensorboard/, report.html. With --seeds 3 each has a folder there, beside seeds.json and seeds.html.
Exit codes: 0 done, 2 an error told in one line, 130 interrupted, 143 stopped by SIGTERM after saving checkpoints/last.
"""

EVAL_EXAMPLES = """
Examples:
  deixis detect eval --model runs/raccoons/teachers/grounding_dino --data labels.json --images photos/
  deixis detect eval --data "scenes:split=unseen_pairs,count=100,seed=3"
"""

PREDICT_EXAMPLES = """
Examples:
  deixis detect predict --images photos/ --names raccoon "traffic light" --model runs/raccoons/checkpoints/best
  deixis detect predict --images photos/ --model runs/raccoons           the names it was fine-tuned on
  deixis detect predict --images a.jpg b.jpg --names star --threshold 0.5 --output found/
  deixis detect predict --images photos/ --names-file names.txt          thousands, one a line
"""

NEW_EXAMPLES = """
Examples:
  deixis detect new --output new_detector
  deixis detect train --model new_detector --recipe scratch --data "scenes:split=pretrain,count=16000,seed=1"
"""


def train(arguments: Sequence[str]) -> int:
    """Fine-tune a detector; with several GPUs, through torchrun."""
    options = parse(DetectTrainOptions, arguments, "detect train", TRAIN_EXAMPLES)
    options.check()
    from deixis.recipes.detect.train import check_inputs, finetune
    from deixis.recipes.run.devices import require_gpus

    if options.gpus is not None and "LOCAL_RANK" not in os.environ:
        require_gpus(options.gpus)
        if options.gpus > 1:
            check_inputs(options)
            relaunch(options.gpus, ["detect", "train", *arguments])
    if options.seeds > 1:
        from deixis.recipes.run.repeat import repeat_run

        repeat_run(options, finetune, ("AP", "AP50"))
        return 0
    finetune(options)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Measure a detector."""
    options = parse(DetectEvalOptions, arguments, "detect eval", EVAL_EXAMPLES)
    options.check()
    from deixis.recipes.detect.evaluate import evaluate_detector

    evaluate_detector(options)
    return 0


def predict(arguments: Sequence[str]) -> int:
    """Find named things in pictures."""
    options = parse(DetectPredictOptions, arguments, "detect predict", PREDICT_EXAMPLES)
    options.check()
    from deixis.recipes.detect.predict import predict_detector

    predict_detector(options)
    return 0


def new(arguments: Sequence[str]) -> int:
    """Write a small detector with random weights."""
    options = parse(DetectNewOptions, arguments, "detect new", NEW_EXAMPLES)
    from deixis.recipes.detect.new import new_detector

    new_detector(options)
    return 0


def relaunch(processes: int, arguments: Sequence[str]) -> None:
    """Become torchrun, which starts this same command in so many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "deixis", *arguments])
