"""Segmenters as folders: go round, read by transformers, refused when incomplete; halves joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_segmenters import TURNS, batch_of, tiny_segmenter
from transformers import AutoTokenizer, InternVLForConditionalGeneration, PreTrainedTokenizerFast, Sam2Model

from deixis.errors import ModelError
from deixis.models.sa2va import NEW_TOKENS, Sa2vaBundle, join_sa2va, load_sa2va, save_sa2va
from deixis.models.sa2va.parts import freeze

TILES = (1, 2, 1)


@torch.no_grad()
def assert_same(one: Sa2vaBundle, other: Sa2vaBundle) -> None:
    batch, again = batch_of(one, TURNS, TILES), batch_of(other, TURNS, TILES)
    for mine, theirs in zip(batch, again, strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))
    outputs = other.model(*again)
    for name, tensor in one.model(*batch).items():
        assert torch.equal(tensor, outputs[name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_goes_round_tokenizer_and_template_included(tied: bool, tmp_path: Path) -> None:
    bundle = tiny_segmenter(tied=tied, behaviour="sa2va")
    save_sa2va(bundle, tmp_path / "model")
    again = load_sa2va(tmp_path / "model")
    assert_same(bundle, again)
    assert (again.template, again.behaviour) == (bundle.template, bundle.behaviour)
    text = "Sure, [SEG] and <p>red</p>."
    assert again.tokenizer.encode(text) == bundle.tokenizer.encode(text)
    assert again.seg_token_id == bundle.tokenizer.convert_tokens_to_ids("[SEG]")
    assert (again.tile_px, again.tokens_per_tile, again.sam_px, again.mask_px) == (64, 16, 64, 16)
    assert (again.model.vlm.lm_head.weight is again.model.vlm.get_input_embeddings().weight) == tied
    save_sa2va(bundle, tmp_path / "model")  # over itself
    assert_same(bundle, load_sa2va(tmp_path / "model"))


@torch.no_grad()
def test_transformers_reads_the_halves(tmp_path: Path) -> None:
    bundle = tiny_segmenter()
    save_sa2va(bundle, tmp_path / "model")
    vlm = InternVLForConditionalGeneration.from_pretrained(tmp_path / "model" / "vlm").eval()
    sam = Sam2Model.from_pretrained(tmp_path / "model" / "sam").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model" / "vlm")
    batch = batch_of(bundle, TURNS[:1], (1,))
    said = vlm(input_ids=batch.input_ids, pixel_values=batch.tiles).logits
    assert torch.equal(said, bundle.model.vlm(input_ids=batch.input_ids, pixel_values=batch.tiles).logits)
    for mine, theirs in zip(sam.state_dict().values(), bundle.model.sam.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert tokenizer.convert_tokens_to_ids("[SEG]") == bundle.seg_token_id


@pytest.mark.parametrize("half", ["vlm", "sam"])
def test_missing_and_extra_tensors_are_named(half: str, tmp_path: Path) -> None:
    save_sa2va(tiny_segmenter(), tmp_path / "model")
    file = tmp_path / "model" / half / "model.safetensors"
    tensors = load_file(file)
    gone = sorted(name for name in tensors if name.endswith("norm1.weight" if half == "sam" else "layer_norm.weight"))[
        0
    ]
    tensors["stranger.weight"] = tensors.pop(gone)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"2 faults.*missing .*norm1?\.weight; unexpected stranger\.weight"):
        load_sa2va(tmp_path / "model")


def test_what_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_sa2va(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="'bert', expected"):
        load_sa2va(tmp_path)


@pytest.mark.parametrize(
    ("name", "numbers"), [("tile_std", [0, 1, 1]), ("tile_std", [1, 1, float("nan")]), ("tile_mean", [1, True, 1])]
)
def test_tiles_are_normalised_by_finite_numbers(name: str, numbers: list[float], tmp_path: Path) -> None:
    save_sa2va(tiny_segmenter(), tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: numbers}))
    with pytest.raises(ModelError, match=rf"config\.json: {name} is .*, expected three numbers") as raised:
        load_sa2va(tmp_path / "model")
    assert "\n" not in str(raised.value)


def test_adapters_are_merged_before_saving(tmp_path: Path) -> None:
    bundle = tiny_segmenter()
    freeze(bundle.model, rank=2, alpha=2)
    with pytest.raises(ModelError, match="merge them"):
        save_sa2va(bundle, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def halves(folder: Path, spare_rows: int = 0) -> tuple[Path, Path]:
    """A vision-language model that knows no [SEG], with unused rows or without, and SAM 2."""
    bundle = tiny_segmenter(tied=False)
    kept = {token: i for token, i in bundle.tokenizer.get_vocab().items() if token not in NEW_TOKENS}
    for new, token in enumerate(sorted(kept, key=lambda token: kept[token])):
        kept[token] = new
    content = json.loads(bundle.tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [
        {**added, "id": kept[added["content"]]} for added in content["added_tokens"] if added["content"] in kept
    ]
    content["model"]["vocab"] = kept
    (folder / "plain.json").write_text(json.dumps(content))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "plain.json"), eos_token="<|im_end|>", pad_token="<pad>", unk_token="<unk>"
    )
    vlm = bundle.model.vlm
    vlm.resize_token_embeddings(len(kept) + spare_rows, mean_resizing=False)
    vlm.config.image_token_id = kept["<IMG_CONTEXT>"]
    vlm.save_pretrained(folder / "vlm")
    tokenizer.save_pretrained(folder / "vlm")
    bundle.model.sam.save_pretrained(folder / "sam")
    return folder / "vlm", folder / "sam"


@pytest.mark.parametrize("spare_rows", [0, 3, 8])
def test_joined_halves_know_the_new_tokens_once(spare_rows: int, tmp_path: Path) -> None:
    vlm, sam = halves(tmp_path, spare_rows)
    before = InternVLForConditionalGeneration.from_pretrained(vlm).get_input_embeddings().weight
    joined = join_sa2va(vlm, sam)
    words = len(before) - spare_rows
    ids = joined.tokenizer.convert_tokens_to_ids(list(NEW_TOKENS))
    assert ids == list(range(words, words + 5))
    rows = joined.model.vlm.get_input_embeddings().weight
    assert len(rows) == max(len(before), words + 5)
    assert torch.equal(rows[:words], before[:words])
    assert (rows[ids] - before[:words].mean(0)).abs().max() < 0.2
    assert joined.template.name == "chatml"
    assert_same(joined, join_sa2va(vlm, sam))
    assert not torch.equal(
        join_sa2va(vlm, sam, seed=1).model.text_hidden_fcs[0].weight, joined.model.text_hidden_fcs[0].weight
    )
    save_sa2va(joined, tmp_path / "joined")
    assert_same(joined, load_sa2va(tmp_path / "joined"))
    twice = join_sa2va(tmp_path / "joined" / "vlm", tmp_path / "joined" / "sam")
    assert len(twice.tokenizer) == words + 5
    assert torch.equal(twice.model.vlm.get_input_embeddings().weight, rows)


def test_halves_of_another_kind_are_refused(tmp_path: Path) -> None:
    vlm, sam = halves(tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer can be read|cannot be made a segmenter"):
        join_sa2va(sam, sam)
    with pytest.raises(ModelError, match="is no SAM 2"):
        join_sa2va(vlm, vlm)
