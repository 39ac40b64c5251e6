"""`deixis refer ...`."""

from __future__ import annotations

from deixis.cli.command import Command, Repeats
from deixis.options.refer_caption import ReferCaptionOptions
from deixis.options.refer_check import ReferCheckOptions
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.refer_eval import ReferEvalOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.options.refer_track import ReferTrackOptions
from deixis.options.refer_train import ReferTrainOptions

CHECK = """
Examples:
  deixis refer check --data phrases.json --images photos/
  deixis refer check --data "refcoco#train" "refcoco#val" --no-decode --json > findings.json
  deixis refer check --data sa1b/ --max-images 1000
  deixis refer check --data phrases.json --model ByteDance/Sa2VA-1B --max-tokens 4096

Exit codes: 0 no errors, 1 errors were found, 2 the data cannot be read at all.
"""

TRAIN = """
Examples:
  deixis refer train --data phrases.json --images photos/ --model ByteDance/Sa2VA-1B
  deixis refer train --config segmenter_finetune --data phrases.json    values of a preset, flags on top
  deixis refer train --refcoco-dir refcoco/ --model ByteDance/Sa2VA-4B --lora-r 64 --precision bf16
  deixis refer train --data phrases.json --model OpenGVLab/InternVL3-1B-hf --sam-model facebook/sam2.1-hiera-large
  deixis refer train --data "scenes:split=refer_train,count=400,seed=1" --quick
  deixis refer train --config runs/segmenter/config.yaml --resume

Without --val-data and --test-data, a tenth of the images chooses the best epoch and, of 100 images or more, results are
reported on another tenth; of fewer, results are optimistic.
Results go to OUTPUT/EXPERIMENT_NAME: checkpoints/best, checkpoints/last, teachers/sa2va, metrics.jsonl, result.json,
config.yaml, tensorboard/, report.html. With --seeds 3 each has a folder there, beside seeds.json and seeds.html.
Several GPUs: --gpus 4, or torchrun ... -m deixis refer train ...
Exit codes: 0 done, 2 an error (one line on stderr), 130 interrupted, 143 SIGTERM, after saving checkpoints/last.
"""

EVAL = """
Examples:
  deixis refer eval --model runs/segmenter/teachers/sa2va --data phrases.json --images photos/
  deixis refer eval --data "scenes:split=refer_unseen,count=100,seed=3" --generate
"""

PREDICT = """
Examples:
  deixis refer predict --images photos/ --phrases "the dog on the left" "the red car" --model ByteDance/Sa2VA-1B
  deixis refer predict --images a.jpg --phrases "a cat" --model runs/segmenter/teachers/sa2va --output found/
"""

TRACK = """
Examples:
  deixis refer track --video clip.mp4 --phrases "the dog on the left" --model ByteDance/Sa2VA-4B
  deixis refer track --video frames/ --phrases "a bird flying away" --model ByteDance/Sa2VA-4B --prompts first
  deixis refer track --video clip.mp4 --phrases "the ball" --model runs/segmenter/teachers/sa2va --prompt-every 20 \\
    --sam-model facebook/sam2-hiera-large
  deixis refer track --data DAVIS#val --model ByteDance/Sa2VA-4B --frame-by-frame --output measured/
  deixis refer track --data "scenes:split=clip_seen,count=16,seed=77" --frame-by-frame
"""

CAPTION = """
Examples:
  deixis refer caption --model runs/segmenter/teachers/sa2va --masks labels.json --images photos/
  deixis refer caption --model ByteDance/Sa2VA-4B --masks masks.json --temperature 0.7 --top-p 0.9 --output drawn/
  deixis refer caption --masks "scenes:split=refer_unseen,count=100,seed=3" --measure
"""

CYCLE = """
Examples:
  deixis refer cycle --model runs/segmenter/teachers/sa2va --masks sa1b/ --max-images 1000 --output captioned/
  deixis refer cycle --model ByteDance/Sa2VA-4B --masks instances.json --images photos/ --threshold 0.8 --candidates 4
  deixis refer train --data captioned/captions.json --model runs/segmenter/teachers/sa2va --caption-share 0.3

The same command resumes an interrupted run; with another --threshold it only filters again.
"""

COMMANDS = (
    Command(
        "refer check",
        ReferCheckOptions,
        "deixis.recipes.refer.check:check_refer_data",
        "find what is wrong with phrases and masks",
        CHECK,
    ),
    Command(
        "refer train",
        ReferTrainOptions,
        "deixis.recipes.refer.train:finetune_segmenter",
        "fine-tune a segmenter: a phrase in, a mask out",
        TRAIN,
        repeats=Repeats("deixis.recipes.refer.train:check_inputs", ("gIoU", "cIoU")),
    ),
    Command(
        "refer eval",
        ReferEvalOptions,
        "deixis.recipes.refer.evaluate:evaluate_segmenter",
        "measure a segmenter: cIoU and gIoU, overall and by group",
        EVAL,
    ),
    Command(
        "refer predict",
        ReferPredictOptions,
        "deixis.recipes.refer.predict:predict_segmenter",
        "segment what phrases mean in images",
        PREDICT,
    ),
    Command(
        "refer track",
        ReferTrackOptions,
        "deixis.recipes.refer.track:track",
        "follow what phrases mean through a video, or measure it on annotated clips",
        TRACK,
    ),
    Command(
        "refer caption",
        ReferCaptionOptions,
        "deixis.recipes.refer.caption:caption_masks",
        "describe masks: a mask in, a phrase out",
        CAPTION,
    ),
    Command(
        "refer cycle",
        ReferCycleOptions,
        "deixis.recipes.refer.cycle:cycle_masks",
        "describe masks, and keep the captions that find their mask again",
        CYCLE,
    ),
)
