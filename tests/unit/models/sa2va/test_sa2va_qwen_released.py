"""Released Sa2VA on Qwen2.5-VL and Qwen3-VL: whole images, read strictly, written back the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from qwen_segmenters import BLOCKS, QWENS, qwen_segmenter, write_released_qwen
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from deixis.batch_records import ReferBatch
from deixis.data.pixels.cuts import Blocks
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import Turn
from deixis.errors import ModelError
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, load_sa2va, read_wording, save_released, save_sa2va
from deixis.refer_records import Expression, ReferSample

SIZES_HW = ((48, 64), (90, 30))


def batch_of(bundle: Sa2vaBundle, sizes_hw: tuple[tuple[int, int], ...] = SIZES_HW) -> ReferBatch:
    """Random images of several shapes, a conversation about each."""
    random = np.random.default_rng(3)
    tokens = ConversationTokens.of(bundle)
    questions = [
        Question(
            ReferSample(random.integers(0, 256, (*size_hw, 3), dtype=np.uint8), size_hw, (Expression(("red",), ()),)),
            tuple(Turn(f"segment the {word}", "Sure, [SEG].", (0,)) for word in words),
            tuple((0, "red") for _ in words),
        )
        for size_hw, words in zip(sizes_hw, (("red circle",), ("blue", "square")), strict=True)
    ]
    views = Views(bundle.tile_px, 12, bundle.sam_px, bundle.mask_px, 1, blocks=bundle.blocks)
    return collate_questions(questions, tokens, views, tokens.pad_token_id, 4096)


def outputs_of(bundle: Sa2vaBundle, batch: ReferBatch) -> dict[str, Tensor]:
    model = bundle.model
    with torch.no_grad():
        found: dict[str, Tensor] = model(
            bundle.normalise_tiles(batch.tiles_u8),
            batch.tiles_per_image,
            bundle.normalise_sam(batch.sam_pixels_u8),
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            grids=batch.grids,
        )
    return found


def patches(bundle: Sa2vaBundle, squares: Tensor, grids: list[tuple[int, int]]) -> Tensor:
    """The processor's order, spelled out: blocks row by row, in each its 2 x 2 patches, each patch in two frames."""
    rows: list[Tensor] = []
    for square in squares:
        for y in (0, 4):
            for x in (0, 4):
                patch = square[:, y : y + 4, x : x + 4]
                rows.append(torch.stack([patch, patch], 1).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("kind", QWENS)
def test_states_and_logits_are_those_of_transformers_whole_model(kind: str) -> None:
    bundle = qwen_segmenter(kind)
    model, batch = bundle.model, batch_of(bundle)
    assert batch.grids == (((6, 8),), ((11, 4),))
    flat = [grid for of_row in batch.grids for grid in of_row]
    squares = bundle.normalise_tiles(batch.tiles_u8)
    with torch.no_grad():
        wanted = model.vlm(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask.long(),
            pixel_values=patches(bundle, squares, flat),
            image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in flat]),
            mm_token_type_ids=(batch.input_ids == model.image_token_id).int(),
            output_hidden_states=True,
        )
        embeddings = model.embed(
            batch.input_ids, model.project(model.vision_features(squares, flat)), batch.tiles_per_image
        )
        positions = model.positions(batch.input_ids, batch.tiles_per_image, batch.grids)
        hidden = model.hidden_states(embeddings, batch.attention_mask, positions)
        turned = model.positions(batch.input_ids, batch.tiles_per_image, (((8, 6),), ((11, 4),)))
        other = model.hidden_states(embeddings, batch.attention_mask, turned)
        shallow = model.hidden_states(embeddings[..., :32], batch.attention_mask, positions)
    real = batch.attention_mask
    torch.testing.assert_close(hidden[real], wanted.hidden_states[-1][real], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other[0][real[0]], hidden[0][real[0]], atol=1e-3)  # rows taken for columns
    deep = kind == "qwen3_vl"  # features of earlier layers count
    assert torch.allclose(shallow[real], hidden[real], atol=1e-4) != deep
    outputs = outputs_of(bundle, batch)
    labelled = batch.labels[:, 1:] != -100
    torch.testing.assert_close(outputs["label_logits"], wanted.logits[:, :-1][labelled], rtol=1e-4, atol=1e-4)
    assert outputs["pred_masks"].shape[0] == 3


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", QWENS)
def test_a_released_folder_is_read_and_written_back(kind: str, version: int, tmp_path: Path) -> None:
    bundle = qwen_segmenter(kind)
    state = write_released_qwen(bundle, tmp_path / "released", version)
    (tmp_path / "released" / "modeling_sa2va_qwen.py").write_text("# their code\n")
    again = load_sa2va(tmp_path / "released")
    assert (again.behaviour, again.blocks, again.template.name) == ("sa2va", BLOCKS, "qwen_vl")
    batch = batch_of(bundle)
    wanted = outputs_of(bundle, batch)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in outputs_of(again, batch).items())
    save_released(again, tmp_path / "back", tmp_path / "released")
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    copied = {path.name for path in (tmp_path / "back").iterdir()}
    assert {"modeling_sa2va_qwen.py", "preprocessor_config.json", "config.json"} <= copied
    save_released(again, tmp_path / "alone")
    alone = load_sa2va(tmp_path / "alone")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in outputs_of(alone, batch).items())
    save_sa2va(again, tmp_path / "mine")
    mine = load_sa2va(tmp_path / "mine")
    assert mine.blocks == BLOCKS
    weights = dict(again.model.named_parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in mine.model.named_parameters())
    for name, tensor in outputs_of(mine, batch).items():  # mapped weights lie elsewhere: AMD adds otherwise
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-7)
    for folder in ("released", "mine"):
        assert read_wording(tmp_path / folder).cutter == BLOCKS


@pytest.mark.parametrize("stored", [True, False], ids=["stored twice", "stored once"])
@pytest.mark.parametrize("kind", QWENS)
def test_an_output_layer_that_is_the_embedding(kind: str, stored: bool, tmp_path: Path) -> None:
    folder = tmp_path / "released"
    state = write_released_qwen(qwen_segmenter(kind), folder)
    embedding = state["model.model.language_model.embed_tokens.weight"]
    state["model.lm_head.weight"] = embedding.clone()
    kept = {name: tensor for name, tensor in state.items() if stored or name != "model.lm_head.weight"}
    save_file(kept, folder / "model.safetensors")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": True}))
    vlm = load_sa2va(folder).model.vlm
    assert vlm.lm_head.weight is vlm.model.language_model.embed_tokens.weight
    assert torch.equal(vlm.lm_head.weight, embedding)


def test_every_unplaced_tensor_is_named(tmp_path: Path) -> None:
    bundle = qwen_segmenter("qwen3_vl")
    state = write_released_qwen(bundle, tmp_path / "released")
    gone = "model.model.visual.deepstack_merger_list.1.norm.weight"
    del state[gone]
    state["model.model.visual.stranger"] = torch.zeros(1)
    save_file(state, tmp_path / "released" / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_sa2va(tmp_path / "released")
    assert f"missing {gone}" in str(caught.value)
    assert "unexpected model.model.visual.stranger" in str(caught.value)


@pytest.mark.parametrize("how", ["code", "configuration"])
def test_sam_3_is_refused_by_name(how: str, tmp_path: Path) -> None:
    values = {"model_type": "sa2va_chat", "text_config": {"model_type": "qwen3_vl_text"}, "vision_config": {}}
    if how == "code":
        (tmp_path / "sam3.py").write_text("")
    else:
        values["auto_map"] = {"AutoModel": "modeling_sa2va_qwen_sam3.Sa2VAChatModelQwenSAM3"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    for read in (load_sa2va, read_wording):
        with pytest.raises(ModelError, match="SAM 3, which is not supported yet"):
            read(tmp_path)


def test_a_system_turn_is_written_where_the_chat_template_has_one(tmp_path: Path) -> None:
    bundle = qwen_segmenter("qwen2_5_vl")
    write_released_qwen(bundle, tmp_path / "released")
    (tmp_path / "released" / "chat_template.jinja").write_text("{% x %}You are a helpful assistant.{% y %}")
    again = load_sa2va(tmp_path / "released")
    ids = ConversationTokens.of(again).question("hello", 3)
    spelled = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    spelled += "<|image_pad|>" * 3 + "<|vision_end|>\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert ids == again.tokenizer(spelled, add_special_tokens=False).input_ids


def test_phrases_of_images_of_any_shape_are_segmented() -> None:
    bundle = qwen_segmenter("qwen3_vl")
    images = [np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8) for i, size in enumerate(SIZES_HW)]
    phrases = ["red circle", "blue square"]
    together = Segmenter(bundle).segment(images, phrases, batch_size=4)
    alone = [Segmenter(bundle).segment([image], phrases, batch_size=1)[0] for image in images]
    assert [[one.mask_rle for one in of_image] for of_image in together] == [
        [one.mask_rle for one in of_image] for of_image in alone
    ]
    written = Segmenter(bundle, generate=True).segment(images, phrases[:1])
    assert all(one.answer for of_image in written for one in of_image)


def test_regions_are_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="take no regions, as in Sa2VA's own code; use one built on InternVL to"):
        Captioner(qwen_segmenter("qwen3_vl"))


@pytest.mark.parametrize("size_hw", [(480, 640), (2000, 3000), (700, 700), (31, 4000), (10, 10), (1, 150)])
@pytest.mark.parametrize("block", [28, 32])
def test_whole_images_have_the_processors_size(size_hw: tuple[int, int], block: int) -> None:
    low, high = 512 * 28**2, 2048 * 28**2
    wanted = smart_resize(*size_hw, factor=block, min_pixels=low, max_pixels=high)
    rows, columns = Blocks(block, low, high).grid(size_hw, 12)
    assert (rows * block, columns * block) == wanted
    rows, columns = Blocks(block, low, high).grid(size_hw, 12, clip=True)
    assert (rows * block, columns * block) == smart_resize(
        *size_hw, factor=block, min_pixels=low // 4, max_pixels=high // 4
    )


def test_strips_and_few_tiles_bound_an_image() -> None:
    blocks = Blocks(28, 512 * 28**2, 2048 * 28**2)
    assert blocks.count((1, 100_000), 12) <= 2048
    assert blocks.count((480, 640), 1) <= 256
    assert blocks.cut(np.zeros((1, 9000, 3), np.uint8), 1).squares.shape[1:] == (3, 28, 28)
