"""The gradient of a segmenter run's first optimiser step, alone or under torchrun.

one_refer_step.py MODEL FOLDER 8x1 4x2     writes FOLDER/8x1.pt (batch size 8) and FOLDER/4x2.pt (two batches of 4)
one_refer_step.py MODEL FOLDER 8x1s        the second half of the images is talked about without a `[SEG]`
one_refer_step.py MODEL FOLDER 8x1t        the second half is chat in text alone: no image, no `[SEG]`
one_refer_step.py MODEL FOLDER 4x1f 4x1fc  the model in shards; with `c`, activations are computed twice
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from deixis.data.batching.epochs import Key, epoch_batches
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import Turn
from deixis.data.refer.loading import QuestionDataset
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import ConversationTokens, freeze, load_sa2va, new_token_ids
from deixis.models.sa2va.parts import layers_of
from deixis.recipes.refer.model import checkpoint_activations, language_parameters
from deixis.refer_records import NO_IMAGE, Exchange, ReferSample
from deixis.training.feed import Feed
from deixis.training.loop import accumulate_gradients, require_gradients
from deixis.training.processes import make_accelerator, mean_figures
from deixis.training.sharding import ShardedModel, gathered, local
from deixis.training.tasks.segmenter import SegmenterTask

IMAGES = 8


class HalfSilent(QuestionDataset):
    """The images that fall to the second of two processes are talked about, but nothing is asked for in them."""

    def __getitem__(self, key: Key) -> Question:
        question = super().__getitem__(key)
        (second, *_) = epoch_batches(IMAGES, IMAGES // 2, 0, 0, num_processes=2, process_index=1)
        silent = replace(question, turns=(Turn("What is this?", "A square.", ()),), asked=())
        return silent if key in second else question


class HalfText(HalfSilent):
    """The same, without any image in the second half."""

    def __getitem__(self, key: Key) -> Question:
        question = super().__getitem__(key)
        chat = ReferSample(NO_IMAGE, (0, 0), (), key[1], "chat", (Exchange(("What is this?",), "A square."),))
        return question if question.asked else replace(question, sample=chat)


DATASETS = {"": QuestionDataset, "s": HalfSilent, "t": HalfText}


def first_step(folder: Path, batch_size: int, accumulation: int, kind: str, out: Path) -> None:
    """Write `{figures, gradients}` of the first step."""
    torch.set_num_threads(1)
    accelerator = make_accelerator(cpu=True)
    bundle = load_sa2va(folder)
    torch.manual_seed(0)
    freeze(bundle.model, rank=4, alpha=8, new_token_ids=new_token_ids(bundle.tokenizer))
    with torch.no_grad():  # adapters begin with a zero factor, which would hide the gradient of the other
        for name, parameter in bundle.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05)
    if "c" in kind:
        checkpoint_activations(bundle)
    model = bundle.model.train()
    if "f" in kind:
        model = accelerator.prepare_model(model, evaluation_mode=True)
        ShardedModel(model, layers_of(model), accelerator.device)
        assert all(isinstance(weight, DTensor) for weight in model.parameters())
        whole = sum(weight.numel() for weight in model.parameters())
        mine = sum(local(weight).numel() for weight in model.parameters())
        assert mine < whole / accelerator.num_processes * 1.1, (mine, whole)
    else:
        model = accelerator.prepare_model(model)
    tokens = ConversationTokens.of(bundle)
    collate = partial(
        collate_questions,
        encode=tokens,
        views=Views(bundle.tile_px, 1, bundle.sam_px, bundle.mask_px),
        pad_token_id=tokens.pad_token_id,
        max_tokens=1024,
    )
    dataset = DATASETS[kind.strip("fc")](refer_scenes("refer_train", IMAGES, 1), 5, seed=0)
    task = SegmenterTask(
        model,
        bundle.normalise_tiles,
        bundle.normalise_sam,
        criterion=ReferCriterion(points=64),
        feed=Feed(dataset=dataset, collate=collate, batch_size=batch_size, accumulation=accumulation),
        accelerator=accelerator,
        language=[] if "f" in kind else language_parameters(bundle.model),
        evaluate=dict,
        save_model=print,
    )
    group = next(task.groups(epoch=0, start=0))
    losses = accumulate_gradients(task, accelerator, group, normaliser=task.normaliser(group))
    require_gradients(bundle.model)
    figures = mean_figures(accelerator, losses)
    gradients = {name: gathered(w.grad) for name, w in bundle.model.named_parameters() if w.requires_grad}
    norm = accelerator.clip_grad_norm_(bundle.model.parameters(), 1e9)
    figures["grad_norm"] = float(gathered(norm))
    if accelerator.is_main_process:
        torch.save({"figures": figures, "gradients": gradients}, out)


if __name__ == "__main__":
    model_folder, out_folder, *ways = sys.argv[1:]
    for way in ways:
        kind = way.lstrip("0123456789x")
        size, batches = map(int, way.removesuffix(kind).split("x"))
        first_step(Path(model_folder), size, batches, kind, Path(out_folder) / f"{way}.pt")
