"""Qwen2.5-VL as the vision-language half, against transformers' own whole model."""

from __future__ import annotations

from pathlib import Path

import torch
from small_segmenters import TURNS, WORDS, batch_of
from transformers import Qwen2_5_VLConfig

from deixis.models.sa2va import Sa2vaBundle, generate, init_sa2va, load_sa2va, save_sa2va
from deixis.models.sa2va.parts import freeze, part_of
from deixis.models.sa2va.small import small_chat_tokenizer, small_sam_config


def qwen_segmenter() -> Sa2vaBundle:
    torch.manual_seed(0)
    tokenizer = small_chat_tokenizer(WORDS)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        tie_word_embeddings=False,
    )
    sam = small_sam_config(64, channels=32, widths=(8, 16, 24, 32), blocks=(1, 1, 2, 1))
    bundle = init_sa2va(config, sam, tokenizer)
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    bundle.model.eval()
    return bundle


@torch.no_grad()
def test_states_are_those_of_the_whole_model() -> None:
    bundle = qwen_segmenter()
    assert (bundle.tile_px, bundle.tokens_per_tile) == (128, 256)
    model = bundle.model
    batch = batch_of(bundle, TURNS[::2], (1, 1))
    pixels = []  # the processor's order: rows of blocks of 2 x 2 patches, each patch twice
    for tile in batch.tiles:
        for block_y in range(16):
            for block_x in range(16):
                for y in (2 * block_y, 2 * block_y + 1):
                    for x in (2 * block_x, 2 * block_x + 1):
                        patch = tile[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                        pixels.append(torch.stack([patch, patch], 1).flatten())
    wanted = model.vlm(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask.long(),
        pixel_values=torch.stack(pixels),
        image_grid_thw=torch.tensor([[1, 32, 32]] * 2),
        mm_token_type_ids=(batch.input_ids == model.image_token_id).int(),
        output_hidden_states=True,
    )
    embeddings = model.embed(batch.input_ids, model.project(model.vision_features(batch.tiles)), (1, 1))
    positions = model.positions(batch.input_ids, (1, 1))
    hidden = model.hidden_states(embeddings, batch.attention_mask, positions)
    real = batch.attention_mask
    torch.testing.assert_close(hidden[real], wanted.hidden_states[-1][real], rtol=1e-4, atol=1e-5)
    counted_on = model.hidden_states(embeddings, batch.attention_mask)
    assert not torch.allclose(counted_on[real], hidden[real], atol=1e-3)
    outputs = model(*batch)
    assert outputs["pred_masks"].shape == (4, 3, 16, 16)
    labelled = batch.labels[:, 1:] != -100
    torch.testing.assert_close(outputs["label_logits"], wanted.logits[:, :-1][labelled], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_generation_goes_on_from_the_prompts_last_position() -> None:
    bundle = qwen_segmenter()
    model = bundle.model
    batch = batch_of(bundle, [TURNS[0][:1], TURNS[2]], (1, 1))
    starts = [(row != -100).nonzero()[0, 0].item() for row in batch.labels]
    lengths = batch.attention_mask.sum(1).tolist()
    prompts = [batch.input_ids[i, :start] for i, start in enumerate(starts)]
    ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=bundle.tokenizer.pad_token_id)
    mask = torch.arange(ids.shape[1])[None] < torch.tensor(starts)[:, None]
    script = [
        batch.input_ids[i, start:length].tolist() + [bundle.end_token_id] * 20
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    steps = iter(torch.tensor([[row[i] for row in script] for i in range(20)]))
    vision = model.project(model.vision_features(batch.tiles))
    found = generate(
        model,
        model.embed(ids, vision, (1, 1)),
        mask,
        bundle.end_token_id,
        choose=lambda logits: next(steps),
        positions=model.positions(ids, (1, 1)),
    )
    hidden = model.hidden_states(
        model.embed(batch.input_ids, vision, (1, 1)), batch.attention_mask, model.positions(batch.input_ids, (1, 1))
    )
    wanted = hidden[batch.input_ids == bundle.seg_token_id]
    torch.testing.assert_close(found.seg_hidden, wanted, rtol=1e-4, atol=1e-5)


def test_its_parts_freeze_and_its_folder_goes_round(tmp_path: Path) -> None:
    bundle = qwen_segmenter()
    save_sa2va(bundle, tmp_path / "model")
    again = load_sa2va(tmp_path / "model")
    mine, theirs = bundle.model.state_dict(), again.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    freeze(again.model, rank=2, alpha=2)
    trained = {part_of(name) for name, p in again.model.named_parameters() if p.requires_grad}
    assert trained == {"projector", "language", "embeddings", "text_hidden_fcs", "mask_decoder"}
