"""Our Sa2VA of every family beside the authors' own code: the same random weights, read strictly, and written back.

Their code is that of github.com/bytedance/Sa2VA, unedited; `sa2va_qwen.py` and `sa2va_internvl.py` say what stands in
for what it asks for.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from internvl_layouts import LAYOUTS, published_config
from qwen_segmenters import BLOCKS, qwen_config, qwen_tokenizer
from safetensors.torch import load_file, save_file
from small_segmenters import WORDS
from transformers import Sam2VideoConfig

from deixis.data.pixels.tiles import squashed
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import ConversationTokens, load_sa2va, save_released, select_mask
from deixis.models.sa2va.small import small_chat_tokenizer

KINDS = {"qwen2_5_vl": "models_qwen2_5_vl", "qwen3_vl": "models_qwen3vl"} | dict.fromkeys(LAYOUTS, "models")
SIDE, STAGES, GLOBAL = 256, [1, 2, 3, 1], [5]
TEXT, ANSWER = "please segment the red circle", "sure, [SEG]. it is [SEG].<|im_end|>"
MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.6, 0.7]


def sam_values():
    """SAM 2 as their code builds it, with fewer blocks and a smaller square."""
    widths, cells = [144 * 2**stage for stage in range(4)], SIDE // 16
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 144, "num_attention_heads": 2,
        "image_size": [SIDE, SIDE], "blocks_per_stage": STAGES, "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [2 * 2**stage for stage in range(4)],
        "window_size_per_stage": [8, 4, 16, 8], "global_attention_blocks": GLOBAL,
        "window_positional_embedding_background_size": [7, 7],
    }  # fmt: skip
    return Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[4 * cells] * 2, [2 * cells] * 2, [cells] * 2],
        },
        prompt_encoder_config={"image_size": SIDE}, image_size=SIDE, memory_attention_rope_feat_sizes=[cells, cells],
        enable_temporal_pos_encoding_for_object_pointers=False, enable_occlusion_spatial_embedding=False,
    ).to_dict()  # fmt: skip


def worst(found, wanted):
    """The largest difference, as a share of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module", params=KINDS)
def asked(request, tmp_path_factory):
    """What both are asked."""
    whole = request.param in LAYOUTS  # what is configured stands in one file
    tokenizer = small_chat_tokenizer(WORDS) if whole else qwen_tokenizer()
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    random = np.random.default_rng(5)
    return {
        "kind": KINDS[request.param],
        "script": "sa2va_internvl.py" if whole else "sa2va_qwen.py",
        "config": (
            published_config(request.param, tokenizer) if whole else qwen_config(request.param, tokenizer).to_dict()
        ),
        "tokenizer": str(folder),
        "pixels": [BLOCKS.min_pixels, BLOCKS.max_pixels],
        "sam": {"stages": STAGES, "global_blocks": GLOBAL, "side": SIDE},
        "image": torch.from_numpy(random.integers(0, 256, (40, 80, 3) if whole else (50, 70, 3), dtype=np.uint8)),
        "text": "<image>\n" + TEXT,
        "answer": ANSWER,
        "targets": torch.from_numpy(random.random((2, SIDE // 4, SIDE // 4)) > 0.7),
        "seed": 7,
    }


def read(answer, asked, folder):
    """Their weights as a released folder, read by us."""
    folder.mkdir()
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in answer["weights"].items()}, folder / "model.safetensors"
    )
    values = {"model_type": "sa2va_chat", "template": "qwen_chat", "deixis_sam_config": sam_values()}
    if asked["script"] == "sa2va_qwen.py":
        values["deixis_pixels"] = asked["pixels"]
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    (folder / "config.json").write_text(json.dumps({**asked["config"], **values}))
    shutil.copytree(asked["tokenizer"], folder, dirs_exist_ok=True)
    return load_sa2va(folder)


def ours(bundle, asked, whole):
    """What our model makes of the same image and conversation."""
    image = asked["image"].numpy()
    cut = bundle.cutter.cut(image, 12)
    tiles = bundle.normalise_tiles(torch.from_numpy(cut.squares))
    grids = ((cut.grid,),) if cut.grid else ()
    pixels = bundle.normalise_sam(torch.from_numpy(squashed(image, (SIDE, SIDE)).transpose(2, 0, 1).copy())[None])
    start = len(ConversationTokens.of(bundle).question(TEXT, len(tiles)))
    labels = whole.clone()
    labels[:, :start] = -100
    real = torch.ones_like(whole, dtype=torch.bool)
    return bundle.model(tiles, (len(tiles),), pixels, whole, real, labels, grids=grids), (tiles, grids, real)


def test_tokens_states_masks_and_losses(asked, their_answer, tmp_path) -> None:
    answer = their_answer("sa2va", asked["script"], asked)
    bundle = read(answer, asked, tmp_path / "released")
    model, whole = bundle.model, answer["whole"]
    cut = bundle.cutter.cut(asked["image"].numpy(), 12)
    assert ConversationTokens.of(bundle).question(TEXT, len(cut.squares)) == answer["input_ids"][0].tolist()
    with torch.no_grad():
        outputs, (tiles, grids, real) = ours(bundle, asked, whole)
        features = model.vision_features(tiles, grids[0] if grids else ())
        embeddings = model.embed(whole, model.project(features), (len(tiles),))
        hidden = model.hidden_states(embeddings, real, model.positions(whole, (len(tiles),), grids))
        chosen = select_mask(outputs, "sa2va")
        language = F.cross_entropy(outputs["label_logits"], outputs["label_ids"])
        criterion, labels = ReferCriterion("sa2va", points=None), torch.tensor(len(outputs["label_ids"]))
        losses = criterion(
            outputs, asked["targets"], torch.tensor(2.0), num_labels=torch.tensor(len(outputs["label_ids"]))
        )
    found = {
        "states": worst(hidden, answer["hidden"]),
        "masks": worst(chosen.logits, answer["logits"]),
        "loss_language": abs(float(language - answer["loss_language"])),
        "loss_mask": abs(float(2.0 * losses["loss_mask"] - answer["loss_mask"])),
        "loss_dice": abs(float(0.5 * losses["loss_dice"] - answer["loss_dice"])),
    }
    print(asked["kind"], found)
    assert found["states"] < 1e-5, found
    assert found["masks"] < 3e-5, found
    assert max(found[name] for name in found if "loss" in name) < 1e-5, found
    assert worst(answer["logits"][0], answer["logits"][1]) > 0.01  # another [SEG] gives another mask

    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    outputs, _ = ours(bundle, asked, whole)
    criterion.total(criterion(outputs, asked["targets"], torch.tensor(2.0), num_labels=labels)).backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    model.eval()
    save_released(bundle, tmp_path / "back", tmp_path / "released")
    weights = load_file(tmp_path / "back" / "model.safetensors")
    assert weights.keys() == answer["weights"].keys()
    again = their_answer("sa2va", asked["script"], {**asked, "weights": weights})
    with torch.no_grad():
        after = select_mask(ours(bundle, asked, again["whole"])[0], "sa2va").logits
    assert worst(after, again["logits"]) < 3e-5
    assert worst(again["logits"], answer["logits"]) > 1e-3  # the step is seen
