"""Which flag was probably meant by one that a command does not have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from deixis.options.types import flag_of

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
    **dict.fromkeys(("workers", "threads"), ("num_workers",)),
    **dict.fromkeys(("patience",), ("early_stopping_patience",)),
    **dict.fromkeys(("amp", "half", "fp16", "bf16", "dtype"), ("precision",)),
    **dict.fromkeys(("warmup", "warmup_epochs"), ("warmup_steps",)),
    **dict.fromkeys(("num_epochs", "max_epochs"), ("epochs",)),
    **dict.fromkeys(("lora_rank", "rank"), ("lora_r",)),
}


def unknown_flag(flag: str, names: Sequence[str], command: str) -> str:
    """What is wrong with a flag that a command does not have; it names the nearest that there is.

    Args:
        names: the command's options, as `batch_size`.
    """
    meant = nearest(flag[2:].replace("-", "_").lower(), names)
    hint = f"did you mean {flag_of(meant)}? See" if meant else "see"
    return f"there is no option {flag} in 'deixis {command}'; {hint} 'deixis {command} --help'"


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The option that a name of another tool, or a slip of the finger, stands for.

    >>> nearest("classes", ["images", "names"])
    'names'
    >>> nearest("epoch", ["epochs", "model"])
    'epochs'
    """
    elsewhere = next((option for option in _ELSEWHERE.get(name, ()) if option in names), None)
    return elsewhere or next(iter(get_close_matches(name, names, 1, 0.6)), None)
