"""What is wrong with the words of a command, in one line, and which flag was probably meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from deixis.errors import OptionError

# Flags of other tools, to those of ours that say the same; the first that a command has is named.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("classes", "class", "class_names", "categories", "labels", "prompt", "prompts", "text", "text_prompt"),
        ("names", "phrases"),
    ),
    **dict.fromkeys(
        ("source", "img", "imgs", "image", "image_dir", "images_dir", "input", "inputs"), ("images", "video")
    ),
    **dict.fromkeys(("weights", "checkpoint", "ckpt", "pretrained", "base_model"), ("model", "detector")),
    **dict.fromkeys(("annotations", "ann", "ann_file", "dataset", "train_data", "coco", "labels_file"), ("data",)),
    **dict.fromkeys(("val", "valid", "validation", "validation_data", "eval_data"), ("val_data",)),
    **dict.fromkeys(("test",), ("test_data",)),
    **dict.fromkeys(("imgsz", "img_size", "size", "resolution"), ("image_size",)),
    **dict.fromkeys(("lr", "lr0", "lrate", "base_lr"), ("learning_rate",)),
    **dict.fromkeys(("batch", "bs", "per_device_train_batch_size"), ("batch_size",)),
    **dict.fromkeys(("accumulate", "grad_accum", "accumulation_steps"), ("gradient_accumulation_steps",)),
    **dict.fromkeys(
        ("conf", "conf_thres", "confidence", "box_threshold", "score_threshold", "score_thr"), ("threshold",)
    ),
    **dict.fromkeys(("max_det",), ("max_detections",)),
    **dict.fromkeys(("name", "run_name", "exp"), ("experiment_name",)),
    **dict.fromkeys(("project", "out", "output_dir", "out_dir", "work_dir", "save_dir", "logdir"), ("output",)),
    **dict.fromkeys(("device", "devices", "gpu", "num_gpus"), ("gpus", "device")),
    **dict.fromkeys(("num_workers", "threads"), ("workers",)),
    **dict.fromkeys(("patience",), ("early_stopping_patience",)),
    **dict.fromkeys(("amp", "half", "fp16", "bf16", "dtype"), ("precision",)),
    **dict.fromkeys(("warmup", "warmup_epochs"), ("warmup_steps",)),
    **dict.fromkeys(("num_epochs", "max_epochs"), ("epochs",)),
    **dict.fromkeys(("lora_r", "rank"), ("lora_rank", "lora_r")),
}


def require_known_flags(arguments: Sequence[str], names: Sequence[str], command: str) -> None:
    """Find the first flag that a command does not have.

    Args:
        names: the command's options, as `batch_size`.

    Raises:
        OptionError: it names the flag, and the nearest that there is.
    """
    known = {*names, *(f"no_{name}" for name in names), "config", "help", "tyro_print_completion"}
    for word in arguments:
        if not re.match(r"--[A-Za-z]", word):
            continue
        flag = word[2:].split("=")[0]
        name = flag.replace("-", "_")
        if name in known or name.startswith("tyro_"):
            continue
        meant = nearest(name.lower(), names)
        hint = f"did you mean --{meant.replace('_', '-')}? See" if meant else "see"
        raise OptionError(f"there is no option --{flag} in 'deixis {command}'; {hint} 'deixis {command} --help'")


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The option that a name of another tool, or a slip of the finger, stands for.

    >>> nearest("classes", ["images", "names"])
    'names'
    >>> nearest("epoch", ["epochs", "model"])
    'epochs'
    """
    elsewhere = next((option for option in _ELSEWHERE.get(name, ()) if option in names), None)
    return elsewhere or next(iter(get_close_matches(name, names, 1, 0.6)), None)


def what_is_wrong(box: str) -> str:
    """The one sentence of a box that the parser prints: what stands under its title, before the next rule."""
    groups: list[list[str]] = [[]]
    for line in box.splitlines():
        inner = line.strip(" │╭╮╰╯")
        if inner and not inner.strip("─-"):
            groups.append([])
        elif not inner.startswith("─"):  # the title, where it stands in the frame
            groups[-1].append(inner)
    framed = box.lstrip().startswith("╭")
    told = groups[0] if framed or len(groups) == 1 else groups[1]
    text = " ".join(" ".join(told).split())
    wanted = _NO_TYPE.match(text)
    if wanted:
        flag, kind, got = wanted.groups()
        kind = kind.strip("{}")
        return f"{flag}: expected {_KINDS.get(kind, kind)}, got {got}"
    text = re.sub(r"^Unrecognized options: ", "not understood: ", text)
    return re.sub(r"^Error parsing (--\S+):", r"\1:", text).rstrip(".")


_NO_TYPE = re.compile(r"Error parsing (--\S+): no type matching (?:\{None\}\|)?(.+?) could be .*? from \[(.*?)\]")
_KINDS = {"INT": "an integer", "FLOAT": "a number", "INT INT": "two integers", "PATH": "a path"}
