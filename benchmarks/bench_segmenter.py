"""A training step of the segmenter beside the straightforward composition of the same weights.

    python benchmarks/bench_segmenter.py                      # two images, SAM 2 at 512 px, one tile of 448 px each
    python benchmarks/bench_segmenter.py --only memory --write
    python benchmarks/bench_segmenter.py --sam-px 1024 --tiles 4 --device cuda --precision bf16 --write

Straightforward is what released training code does with transformers' own models: both frozen encoders run in every
step; the language model gives logits at every position, over the whole vocabulary; five objects are asked of an image,
phrases repeated where it has fewer; all token embeddings train. deixis asks for the two and three objects there are,
computes logits where a label is, and trains the rows of the new tokens; with `--cache-features` the encoders' features
come from disk; with `--gradient-checkpointing` the backward pass computes activations of the language model and the
mask decoder again. All learn as Sa2VA does: the mask of the highest predicted IoU, at 12,544 points, LoRA on the
language model, projector and mask decoder in full. A step is forward, losses, backward, clipping and AdamW. Given the
same conversations, the losses have to agree before anything is timed. Peak memory is measured in a process of its own
for each, over what is in use before the step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from harness import peak_resident_mib, ratios, table, time_interleaved, write_result

from deixis.batch_records import ReferBatch
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import conversation_words, single_turn
from deixis.data.scenes.phrases import phrase_words
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.losses.masks import mask_ce, naive_dice, uncertain_points, values_at
from deixis.losses.refer import POINTS, ReferCriterion
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, freeze, init_sa2va, new_token_ids
from deixis.models.sa2va.small import small_chat_tokenizer, small_sam_config, small_vlm_config
from deixis.recipes.refer.model import checkpoint_activations
from deixis.training.tasks.frozen_features import FrozenFeatures
from deixis.training.tasks.segmenter import SegmenterTask

SIDES = {  # side: embedding rows that train
    "straightforward": "all",
    "deixis": "new",
    "deixis, features cached": "new",
    "deixis, features cached, checkpointed": "new",
}
OBJECTS = (2, 3)  # RefCOCO has 2.5 objects an image
FORCED = 5


def make_bundle(rows: Any, arguments: argparse.Namespace) -> Sa2vaBundle:
    """Random weights in the shape of a small InternVL (12 + 8 layers of 384 channels) and of SAM 2's smallest form."""
    torch.manual_seed(0)
    tokenizer = small_chat_tokenizer((*phrase_words(), *conversation_words()))
    vlm = small_vlm_config(
        tokenizer,
        tile_px=arguments.tile_px,
        patch_px=14,
        vision_width=arguments.width,
        vision_layers=12,
        text_width=arguments.width,
        text_layers=8,
        tied=False,
    )
    vlm.text_config.vocab_size = arguments.vocabulary
    sam = small_sam_config(
        arguments.sam_px,
        channels=256,
        widths=tuple(arguments.width * share // 4 for share in (1, 2, 4, 8)),
        blocks=(1, 2, 7, 2),
    )
    bundle = init_sa2va(vlm, sam, tokenizer, behaviour="sa2va")
    freeze(bundle.model, rank=16, alpha=32, rows=rows, new_token_ids=new_token_ids(tokenizer))
    for name, parameter in bundle.model.named_parameters():
        if any(part in name for part in ("iou_prediction_head", "pred_obj_score_head", "obj_score_token")):
            parameter.requires_grad_(False)
    bundle.model.to(arguments.device).train()
    return bundle


def make_batch(bundle: Sa2vaBundle, objects: tuple[int, ...], arguments: argparse.Namespace) -> ReferBatch:
    """Pictures with so many objects asked for each, in turns; phrases are repeated where there are fewer."""
    scenes, tokens = refer_scenes("refer_train", len(objects), 1), ConversationTokens.of(bundle)
    questions = []
    for index, (count, asked) in enumerate(zip(OBJECTS, objects, strict=True)):
        sample = scenes[index]
        chosen = [i % count for i in range(asked)]
        texts = [sample.expressions[i].texts[0] for i in chosen]
        turns = tuple(single_turn(text, bundle.behaviour) for text in texts)
        questions.append(Question(sample, turns, tuple(zip(chosen, texts, strict=True))))
    views = Views(bundle.tile_px, arguments.tiles, bundle.sam_px, bundle.mask_px)
    return collate_questions(questions, tokens, views, tokens.pad_token_id, 1 << 20).to(arguments.device)


def straightforward_loss(bundle: Sa2vaBundle, batch: ReferBatch) -> torch.Tensor:
    """transformers' whole models, one after the other."""
    model = bundle.model
    said = model.vlm(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask.long(),
        pixel_values=bundle.normalise_tiles(batch.tiles_u8),
        labels=batch.labels,
        output_hidden_states=True,
        use_cache=False,
    )
    rows, columns = torch.where(batch.input_ids == bundle.seg_token_id)
    prompts = model.text_hidden_fcs(said.hidden_states[-1][rows, columns])
    sam, decoder = model.sam, model.sam.mask_decoder
    fine, middle, coarse = sam.vision_encoder(bundle.normalise_sam(batch.sam_pixels_u8)).fpn_hidden_states
    blank = sam.prompt_encoder.not_a_point_embed.weight.expand(len(prompts), 2, -1)
    logits, ious, _, _ = decoder(
        image_embeddings=(coarse + sam.no_memory_embedding.reshape(1, -1, 1, 1))[rows],
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=torch.cat([blank, prompts[:, None]], 1)[:, None],
        dense_prompt_embeddings=sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1),
        multimask_output=True,
        high_resolution_features=[decoder.conv_s0(fine)[rows], decoder.conv_s1(middle)[rows]],
    )
    best = logits[torch.arange(len(rows)), 0, ious[:, 0].argmax(1)].float()
    targets = torch.cat([target.masks for target in batch.targets]).float()
    points = uncertain_points(best, POINTS)
    flat, wanted = values_at(best, points), values_at(targets, points)
    loss: torch.Tensor = 2.0 * mask_ce(flat, wanted).mean() + 0.5 * naive_dice(flat, wanted).mean() + said.loss
    return loss


def our_loss(bundle: Sa2vaBundle, batch: ReferBatch, features: FrozenFeatures | None) -> torch.Tensor:
    """What `deixis refer train` computes in a step."""
    task = SegmenterTask.__new__(SegmenterTask)
    task.model, task.criterion, task.features, task.unwatched = bundle.model, ReferCriterion("sa2va"), features, []
    task.normalise_tiles, task.normalise_sam = bundle.normalise_tiles, bundle.normalise_sam
    task.accelerator = Accelerator(cpu=batch.input_ids.device.type == "cpu")
    total, _ = task.losses(batch, task.normaliser([batch]))
    return total


def stepper(side: str, arguments: argparse.Namespace, folder: Path) -> Callable[[], None]:
    """A training step of a side."""
    bundle = make_bundle(SIDES[side], arguments)
    plain = side == "straightforward"
    batch = make_batch(bundle, (FORCED, FORCED) if plain else OBJECTS, arguments)
    features = None
    if "cached" in side:
        features = FrozenFeatures(bundle, folder, 1 << 40, accelerator=Accelerator(cpu=arguments.device == "cpu"))
    if "checkpointed" in side:
        checkpoint_activations(bundle)
    weights = [weight for weight in bundle.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=True)

    def step() -> None:
        with amp(arguments):
            total = straightforward_loss(bundle, batch) if plain else our_loss(bundle, batch, features)
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def check_agreement(arguments: argparse.Namespace, folder: Path) -> float:
    """The largest relative difference of the losses of one conversation; more than 1e-3 ends the benchmark."""
    found = []
    for side in SIDES:
        bundle = make_bundle(SIDES[side], arguments)
        batch = make_batch(bundle, OBJECTS, arguments)
        features = None
        if "cached" in side:
            features = FrozenFeatures(bundle, folder, 1 << 40, accelerator=Accelerator(cpu=arguments.device == "cpu"))
        torch.manual_seed(2)  # the same points
        with torch.no_grad(), amp(arguments):
            plain = side == "straightforward"
            found.append(float(straightforward_loss(bundle, batch) if plain else our_loss(bundle, batch, features)))
    difference = max(abs(loss - found[0]) for loss in found) / found[0]
    if difference > (1e-3 if arguments.precision == "fp32" else 2e-2):
        sys.exit(f"the losses do not agree: {found}")
    return difference


def peak_of_a_step(side: str, arguments: argparse.Namespace, folder: Path) -> float:
    """MiB that a step takes at its peak beyond what is in use before it (second step: optimiser state exists)."""
    step = stepper(side, arguments, folder)
    step()
    if arguments.device == "cpu":
        return peak_resident_mib(step)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def amp(arguments: argparse.Namespace) -> Any:
    """Mixed precision as asked."""
    if arguments.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(arguments.device, torch.bfloat16)


def measured(arguments: argparse.Namespace, folder: Path) -> list[list[object]]:
    """Rows of the table."""
    rows: list[list[object]] = []
    if "step" in arguments.only:
        times = time_interleaved({side: stepper(side, arguments, folder) for side in SIDES}, arguments.rounds)
        for side in SIDES:
            faster = ratios(times["straightforward"], times[side])
            rows.append([side, "training step, ms", times[side], f"{faster} times as fast"])
    if "memory" in arguments.only:
        peaks = {}
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", side]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[side] = float(json.loads(output.splitlines()[-1]))
            share = f"{peaks[side] / peaks['straightforward']:.2f} of it"
            rows.append([side, "peak of a step, MiB", f"{peaks[side]:.0f}", share])
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["step", "memory"], default=["step", "memory"])
    parser.add_argument("--sam-px", type=int, default=512)
    parser.add_argument("--tiles", type=int, default=1, help="most tiles an image")
    parser.add_argument("--tile-px", type=int, default=448)
    parser.add_argument("--width", type=int, default=384, help="channels of the encoder and the language model")
    parser.add_argument("--vocabulary", type=int, default=16_384)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--peak-of", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.peak_of:
            print(json.dumps(peak_of_a_step(arguments.peak_of, arguments, Path(folder))))
            return
        difference = check_agreement(arguments, Path(folder))
        rows = measured(arguments, Path(folder))
    title = f"Segmenter, two images, SAM 2 at {arguments.sam_px} px, {arguments.tiles} tile(s), {arguments.precision}"
    body = (
        f"{' and '.join(map(str, OBJECTS))} objects in the images, {FORCED} forced on each by the straightforward; "
        f"vocabulary {arguments.vocabulary:,}. Losses of equal conversations agree within {difference:.1g}.\n\n"
    ) + table(["", "", "median (range)", "ratio to straightforward"], rows)
    print(body)
    if arguments.write:
        part = "" if len(arguments.only) == 2 else "_" + "_".join(arguments.only)
        what = f"segmenter_{arguments.precision}_{arguments.sam_px}px{part}"
        print(f"wrote {write_result(what, title, body, arguments.device).relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
