"""The table of commands. `deixis --help` lists them in this order."""

from __future__ import annotations

from deixis.cli import data, detect, model, refer, review
from deixis.cli.command import Command
from deixis.options.annotate import AnnotateOptions
from deixis.options.config import ConfigListOptions, ConfigShowOptions
from deixis.options.demo import DemoOptions, ReferDemoOptions
from deixis.options.doctor import DoctorOptions
from deixis.options.plan import PlanOptions
from deixis.options.play import PlayOptions
from deixis.options.serve import ServeOptions

DEMO = """
Examples:
  deixis demo
  deixis demo --output elsewhere

It measures the built-in detector on names that it has never seen, fine-tunes it, measures it again, also on names
that it knew before, and writes a report.
"""

REFER_DEMO = """
Examples:
  deixis demo refer
  deixis demo refer --output elsewhere

It measures the built-in segmenter on phrases about shapes that it has never seen, fine-tunes it, measures it again,
and writes a report with drawn masks.
"""

DOCTOR = """
Examples:
  deixis doctor
  deixis doctor --model runs/raccoons --image photo.jpg
  deixis doctor --data labels.json
  deixis doctor --model IDEA-Research/grounding-dino-tiny --device cuda

Prints one page. The exit code is 0 if all is well, 1 if a line is marked FAIL.
"""

ANNOTATE = """
Examples:
  deixis annotate --images photos/ --names "red car" dog
  deixis annotate --images a.jpg --names cup --detector IDEA-Research/grounding-dino-tiny --segmenter ByteDance/Sa2VA-1B
  deixis annotate --images photos/ --segmenter ByteDance/Sa2VA-4B --points 32 --output everything/
  deixis annotate --stream rtsp://10.0.0.7/gate --names car --frame-step 30 --detector <folder> --segmenter <folder>
  deixis refer train --data annotated/expressions.json --model runs/segmenter/teachers/sa2va

The same command resumes an interrupted run; with another --cycle-threshold it only filters again.
"""

PLAN = """
Examples:
  deixis plan --pictures 1000000 --billions 0 --gpus 4 --price 2.5           label with a detector
  deixis plan --pictures 100000000 --billions 26 --gpus 256 --price 2.5     and with a 26 B segmenter
  deixis plan --task train --pictures 200000 --billions 8 --gpus 8 --lora-share 0.01 --epochs 2
  deixis plan --pictures 50000 --seconds-per-picture 0.4 --gpus 1           what one picture took, measured

docs/scale.md has the formulas, where their constants were measured, and what they were checked against.
"""

SERVE = """
Examples:
  deixis serve --detector IDEA-Research/grounding-dino-tiny --segmenter ByteDance/Sa2VA-1B
  deixis serve --detector cars=runs/cars/teachers/grounding_dino signs=runs/signs/teachers/grounding_dino --port 9000
  curl -F image=@a.jpg -F names=car http://127.0.0.1:8000/v1/detect

Ctrl-C stops it once open requests are answered.
"""

PLAY = """
Examples:
  deixis play
  deixis play --detector before=IDEA-Research/grounding-dino-tiny after=runs/cars/teachers/grounding_dino
  deixis play --segmenter ByteDance/Sa2VA-1B --port 9000

Open the address that it prints in a browser. Ctrl-C stops it. docs/play.md describes the page.
"""

CONFIG = """
Examples:
  deixis config list
  deixis config show detector_finetune
  deixis config show detector_finetune > mine.yaml        and then: deixis detect train --config mine.yaml ...
"""

COMMANDS: dict[str, Command] = {
    command.words: command
    for command in (
        Command(
            "demo",
            DemoOptions,
            "deixis.recipes.demo:demo",
            "fine-tune the built-in detector on new names, offline, in minutes",
            DEMO,
        ),
        Command(
            "demo refer",
            ReferDemoOptions,
            "deixis.recipes.demo:demo_refer",
            "fine-tune the built-in segmenter on new shapes",
            REFER_DEMO,
        ),
        Command(
            "doctor",
            DoctorOptions,
            "deixis.recipes.doctor:doctor",
            "check this machine: libraries, kernels, a model beside transformers', speed",
            DOCTOR,
        ),
        Command(
            "annotate",
            AnnotateOptions,
            "deixis.recipes.annotate:annotate",
            "photographs to boxes, masks and captions, by both models",
            ANNOTATE,
        ),
        Command(
            "plan",
            PlanOptions,
            "deixis.recipes.plan:plan",
            "estimate memory, hours and cost of labelling or training",
            PLAN,
        ),
        Command(
            "serve", ServeOptions, "deixis.recipes.serve:serve", "models over HTTP, for other programs to ask", SERVE
        ),
        Command("play", PlayOptions, "deixis.recipes.play:play", "try models in the browser", PLAY),
        *data.COMMANDS,
        *review.COMMANDS,
        *model.COMMANDS,
        *detect.COMMANDS,
        *refer.COMMANDS,
        Command(
            "config list",
            ConfigListOptions,
            "deixis.cli.arguments:list_presets",
            "list the presets for --config",
            CONFIG,
        ),
        Command(
            "config show",
            ConfigShowOptions,
            "deixis.cli.arguments:show_preset",
            "print a preset, to read or to copy",
            CONFIG,
            bare="name",
        ),
    )
}

_SCRIPT = "scripts/build_builtin trains small models from random weights"
REMOVED = {
    "detect new": _SCRIPT,
    "refer new": _SCRIPT,
    "refer memory": "a SAM 2 follows with the memory that it was released with; "
    "'deixis refer track --sam-model' takes another SAM 2",
}
"""Commands of earlier versions, and what replaced each."""
