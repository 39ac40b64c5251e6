"""`deixis detect ...`."""

from __future__ import annotations

from deixis.cli.command import Command, Repeats
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.detect_words import DetectWordsOptions

TRAIN = """
Examples:
  deixis detect train --data labels.json --images photos/ --model IDEA-Research/grounding-dino-tiny
  deixis detect train --data annotations/ --images images/ --lora --experiment-name raccoons
  deixis detect train --data coco.json captions.jsonl --data-weights 2 1 --val-data val.json
  deixis detect train --config detector_finetune --data labels.json     values of a preset, flags on top
  deixis detect train --config runs/raccoons/config.yaml --resume
  deixis detect train --data train.json --val-data val.json --test-data test.json --seeds 3
  deixis detect train --config run.yaml --gpus 4            or: torchrun ... -m deixis detect train ...

Without --val-data and --test-data, 100 images or more are split in three: 70 % train, 15 % choose the best epoch, and
results are reported on the other 15 %. Of fewer, a fifth is held out, and results are optimistic.
Results go to OUTPUT/EXPERIMENT_NAME: checkpoints/best, checkpoints/last, teachers/, metrics.jsonl, result.json,
config.yaml, tensorboard/, report.html. With --seeds 3 each has a folder there; teachers/ has the average or the best.
Exit codes: 0 done, 2 an error (one line on stderr), 130 interrupted, 143 SIGTERM, after saving checkpoints/last.
"""

EVAL = """
Examples:
  deixis detect eval --model runs/raccoons/teachers/grounding_dino --data labels.json --images photos/
  deixis detect eval --data "scenes:split=unseen_pairs,count=100,seed=3"
"""

PREDICT = """
Examples:
  deixis detect predict --images photos/ --names raccoon "traffic light" --model runs/raccoons/checkpoints/best
  deixis detect predict --images photos/ --model runs/raccoons           the names it was fine-tuned on
  deixis detect predict --images a.jpg b.jpg --names star --threshold 0.5 --output found/
  deixis detect predict --images photos/ --names-file names.txt          thousands, one per line
  deixis detect predict --images gate.mp4 --names car --track            a video, each car with an id
"""

WORDS = """
Examples:
  deixis detect words --data val.json --images photos/ --names "car=car,automobile,sedan" --model runs/cars
  deixis detect words --data val.json --names "car=car,sedan" "bus=bus,coach" --model IDEA-Research/grounding-dino-tiny

Each wording is measured by itself, then all of a class together. The last line is the --names that find most.
"""

COMMANDS = (
    Command(
        "detect train",
        DetectTrainOptions,
        "deixis.recipes.detect.train:finetune",
        "fine-tune a detector on your own images and boxes",
        TRAIN,
        repeats=Repeats(
            "deixis.recipes.detect.train:check_inputs",
            ("AP", "AP50"),
            keep="deixis.recipes.detect.learning.seeds:keep_of_seeds",
        ),
    ),
    Command(
        "detect eval",
        DetectEvalOptions,
        "deixis.recipes.detect.evaluate:evaluate_detector",
        "measure a detector: mAP overall, by size and by class",
        EVAL,
    ),
    Command(
        "detect predict",
        DetectPredictOptions,
        "deixis.recipes.detect.predict:predict_detector",
        "find named things in images and videos",
        PREDICT,
    ),
    Command(
        "detect words",
        DetectWordsOptions,
        "deixis.recipes.detect.words:try_words",
        "try wordings of class names, and say which finds most",
        WORDS,
    ),
)
