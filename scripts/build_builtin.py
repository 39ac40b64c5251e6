"""Train a small detector or segmenter from random weights on generated scenes, and measure it on held-out ones.

    python scripts/build_builtin.py detector
    python scripts/build_builtin.py segmenter --output runs/builtin
    python scripts/build_builtin.py segmenter --steps 20        a trial: is it learning? records nothing

Every seed is fixed and no step is done by hand. Both models in src/deixis/builtin were trained by these recipes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]

from builtin_memory import train_memory  # noqa: E402
from clips_segmenter import measured  # noqa: E402
from harness import RESULTS, hardware, table  # noqa: E402
from loop_segmenter import ATTRIBUTES, described, percent  # noqa: E402
from loop_segmenter import share as right  # noqa: E402

from deixis import load_detector  # noqa: E402
from deixis.data.refer.conversation import conversation_words  # noqa: E402
from deixis.data.scenes.clip_scenes import clip_scenes  # noqa: E402
from deixis.data.scenes.images import scene_words, scenes  # noqa: E402
from deixis.data.scenes.phrases import phrase_words  # noqa: E402
from deixis.data.scenes.refer_scenes import refer_scenes  # noqa: E402
from deixis.inference.refer.segmenter import load_segmenter  # noqa: E402
from deixis.models.grounding_dino import init_bundle, save_grounding_dino  # noqa: E402
from deixis.models.grounding_dino.small import IMAGE_SIZE, small_config, small_tokenizer  # noqa: E402
from deixis.models.model_record import ModelRecord  # noqa: E402
from deixis.models.sa2va import Sa2vaBundle, load_sa2va, save_sa2va  # noqa: E402
from deixis.models.sa2va.small import small_segmenter  # noqa: E402
from deixis.options.detect_train import DetectTrainOptions  # noqa: E402
from deixis.options.refer_train import ReferTrainOptions  # noqa: E402
from deixis.recipes.detect.train import finetune  # noqa: E402
from deixis.recipes.refer.train import finetune_segmenter  # noqa: E402

HELD_OUT = 9002  # no training or validation scene has this seed
MEMORY_STEPS = 60

DETECTOR: dict[str, Any] = {
    "data": "scenes:split=pretrain,count=12000,seed=1",
    "val_data": "scenes:split=unseen_pairs,count=100,seed=2",
    "backbone_lr_factor": 1.0,
    "text_lr_factor": 1.0,
    "epochs": 4,
    "stop_after_epochs": 2,
    "batch_size": 8,
    "learning_rate": 4e-4,
    "schedule": "cosine",
    "warmup_steps": 200,
    "ema_decay": 0.998,
    "augment": "flips",
}
SEGMENTER: dict[str, Any] = {
    "val_data": "scenes:split=refer_seen,count=60,seed=4",
    "max_val_images": 30,
    "max_tiles": 1,
    "lora": False,
    "train_embeddings": True,
    "weight_decay": 0.01,
    "weight_dice": 2.0,
    "mask_points": 0,  # every cell of the small grid
    "ema_decay": 0.99,
}
MASKS: dict[str, Any] = {
    "data": ("scenes:split=refer_names,count=5400,seed=1", "scenes:split=refer_train,count=3600,seed=2"),
    "batch_size": 8,
    "max_masks": 6,
    "train": ("vision", "projector", "text_hidden_fcs", "sam_encoder", "mask_decoder"),
    "learning_rate": 1e-3,
    "weight_point": 4.0,
}
WORDS: dict[str, Any] = {  # SAM 2 stays as it is; phrases among the descriptions keep the language model listening
    "data": ("scenes:split=refer_described,count=5000,seed=3", "scenes:split=refer_train,count=1200,seed=5"),
    "batch_size": 24,
    "max_masks": 1,  # which region is meant would have to be learnt first
    "train": ("vision", "projector"),
    "learning_rate": 1e-3,
    "caption_share": 0.75,
}
OUTPUT_GAIN, SMALL = 0.3, 0.1
OUTPUTS = ("o_proj", "down_proj", "proj_out", "linear2", "fc2", "projection_layer")  # added to what is there
TABLES = ("memory_temporal_positional_encoding", "no_object_pointer", "occlusion_spatial_embedding_parameter")
TRIAL = {
    "detector": {"val_data": "scenes:split=unseen_pairs,count=8,seed=2"},
    "segmenter": {"max_val_images": 4},
}
COMMON: dict[str, Any] = {"baseline": False, "report": False, "overwrite": True, "num_workers": 1, "gpus": 0, "seed": 0}


def build_detector(output: Path, steps: int | None) -> Path:
    """The trained detector's folder."""
    torch.manual_seed(0)
    tokenizer = small_tokenizer(scene_words())
    start = output / "detector_start"
    save_grounding_dino(init_bundle(small_config(len(tokenizer)), tokenizer, image_size=IMAGE_SIZE), start)
    run = {"model": str(start), "output": output, "experiment_name": "detector", "max_steps": steps}
    return teacher_of(finetune(DetectTrainOptions(**DETECTOR | COMMON | run | (TRIAL["detector"] if steps else {}))))


def build_segmenter(output: Path, steps: int | None) -> Path:
    """The trained segmenter's folder: it learns masks first, then to describe, then its memory from clips."""
    torch.manual_seed(0)
    words = (*phrase_words(), *conversation_words())
    shape = {"tile_px": 64, "vision_width": 64, "vision_layers": 2, "text_width": 128, "text_layers": 2}
    bundle = small_segmenter(words, memory=True, sam_channels=64, sam_widths=(24, 48, 96, 192), **shape)
    # Prompts point at cells before they segment, and outlines are tokens: without them neither places nor shapes are
    # learnt from random weights within hours (docs/segmenter.md).
    bundle.model.sam.config.points_first = True
    bundle.model.add_spatial_token()
    draw_weights(bundle.model)
    keep_words_in_seg(bundle)
    folder = output / "segmenter_start"
    save_sa2va(bundle, folder)
    for name, stage in (("masks", MASKS), ("words", WORDS)):
        run = {"model": str(folder), "output": output, "experiment_name": name, "max_steps": steps}
        trial = TRIAL["segmenter"] if steps else {}
        folder = teacher_of(finetune_segmenter(ReferTrainOptions(**SEGMENTER | stage | COMMON | run | trial)))
    bundle = load_sa2va(folder)
    train_memory(bundle, "scenes:split=clip_train,count=400,seed=1", steps or MEMORY_STEPS)
    record = ModelRecord(task="segmenter", domain="generated", thresholds=bundle.record.thresholds)
    save_sa2va(replace(bundle, record=record), output / "segmenter_builtin")
    return output / "segmenter_builtin"


@torch.no_grad()
def draw_weights(part: nn.Module) -> None:
    """Draw weights by the number of inputs, so that signals keep their size from layer to layer, and what is added to a
    sum small. As transformers draws them, all with one spread made for wide models, the language model learns half as
    fast, and a memory is still deaf to its prompts after 150 steps."""
    for name, module in part.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight[0].numel() if not isinstance(module, nn.ConvTranspose2d) else len(module.weight)
            gain = OUTPUT_GAIN if name.endswith(OUTPUTS) or "neck" in name else 1.0
            nn.init.normal_(module.weight, std=gain * fan_in**-0.5)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm) or "layer_norm" in name.rsplit(".", 1)[-1]:
            module.weight.fill_(1.0)
            module.bias.zero_()
        if isinstance(scale := getattr(module, "scale", None), nn.Parameter):
            scale.fill_(SMALL)
    for name in TABLES:
        if getattr(part, name, None) is not None:
            nn.init.normal_(getattr(part, name), std=SMALL)


@torch.no_grad()
def keep_words_in_seg(bundle: Sa2vaBundle) -> None:
    """Let each position attend to the few before it, and the feed-forward layers add nothing.

    So the state at `[SEG]` holds the words of its phrase from the first step on. With weights as transformers draws
    them it holds none of them for hundreds of steps, in which masks learn not to depend on the prompt.
    """
    for layer in bundle.model.vlm.model.language_model.layers:
        attention = layer.self_attn
        for projection in (attention.q_proj, attention.k_proj):
            projection.bias.zero_()
            for head in range(3):  # the fourth attends anywhere; later ones of these reach farther back
                start = head * attention.head_dim + head
                projection.bias[start : start + 3] = 3.4  # rotary frequencies whose common peak is at distance 0
        layer.mlp.down_proj.weight.zero_()


def teacher_of(result: Any) -> Path:
    """The folder of a run's best weights."""
    teacher: Path = result.teacher
    return teacher


def detector_results(model: Path, share: float = 1.0) -> str:
    """AP on held-out scenes, or on a share of them."""
    metrics, _ = load_detector(str(model)).evaluate(scenes("unseen_pairs", int(100 * share), HELD_OUT), batch_size=8)
    values = metrics.as_dict()
    return table(["scenes", "AP", "AP50"], [["unseen pairs", f"{values['AP']:.3f}", f"{values['AP50']:.3f}"]])


def segmenter_results(model: Path, share: float = 1.0) -> str:
    """Masks by kind of phrase, what descriptions name, and followed phrases, on held-out scenes and clips."""
    count = {"scenes": int(40 * share), "described": int(10 * share), "clips": max(1, int(2 * share))}
    masks, words = [], []
    for split in ("refer_seen", "refer_unseen"):
        metrics, _ = load_segmenter(str(model), "cpu", 1).evaluate(refer_scenes(split, count["scenes"], HELD_OUT), 32)
        groups = {"all": metrics, **dict(sorted(metrics.tags.items()))}
        masks += [[split, kind, g.phrases, f"{g.ciou:.3f}", f"{g.giou:.3f}"] for kind, g in groups.items()]
        said = described(str(model), split, count["described"])
        rights = [percent(right(one.attributes[name] for one in said)) for name in ATTRIBUTES]
        words.append([split, len(said), *rights, percent(right(one.exact for one in said))])
    followed, _ = measured(str(model), clip_scenes("clip_seen", count["clips"], HELD_OUT), "cpu")
    clips = [[way, metrics.whole.phrases, f"{100 * metrics.whole.jf:.1f}"] for way, metrics in followed.items()]
    parts = (
        ("Masks", table(["scenes", "phrases", "how many", "cIoU", "gIoU"], masks)),
        ("Descriptions, % right where named", table(["scenes", "things", *ATTRIBUTES, "exact"], words)),
        ("Clips", table(["way", "phrases", "J&F %"], clips)),
    )
    return "\n\n".join(f"## {title}\n\n{rows}" for title, rows in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("detector", "segmenter"))
    parser.add_argument("--output", type=Path, default=Path("runs/builtin"), help="a folder that does not exist yet")
    parser.add_argument("--steps", type=int, default=None, help="end each training after N steps; nothing is recorded")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"--output: {arguments.output} exists; choose another folder")
    build, measure = (
        (build_detector, detector_results) if arguments.model == "detector" else (build_segmenter, segmenter_results)
    )
    started = time.perf_counter()
    folder = build(arguments.output, arguments.steps)
    minutes = (time.perf_counter() - started) / 60
    print(f"{minutes:.0f} minutes")
    text = f"# The built-in {arguments.model}, from random weights\n\n"
    text += f"`scripts/build_builtin {arguments.model}` took {minutes:.0f} minutes on {hardware()} (seed 0); "
    text += f"results on generated scenes and clips of seed {HELD_OUT}.\n\n"
    text += f"{measure(folder, 0.1 if arguments.steps else 1.0)}\n"
    if arguments.steps is None:
        (RESULTS / f"builtin_{arguments.model}.md").write_text(text, encoding="utf-8")
    print(f"{text}wrote {folder}")


if __name__ == "__main__":
    main()
