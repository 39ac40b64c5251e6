"""Our detector beside IDEA-Research's own code: weights that it saved, converted by the command that users run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from small_detectors import all_outputs, bert_tokenizer, images
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from deixis.batch_records import Target
from deixis.data.detect.transforms import eval_transform
from deixis.data.pixels.images import load
from deixis.losses.detection import build_criterion
from deixis.models.grounding_dino import GroundingDinoBundle, load_grounding_dino
from deixis.models.grounding_dino.weights.convert import save_checkpoint
from deixis.models.grounding_dino.weights.key_tables import idea_table
from deixis.models.grounding_dino.weights.layouts import UNTIED, scatter
from deixis.models.grounding_dino.weights.transformers_layout import file_name
from deixis.options.model_convert import ModelConvertOptions
from deixis.recipes.model.tools import convert_model
from deixis.records import Instances, Sample, Vocabulary

SMALL = {  # the width is in their code
    "width": 256, "heads": 8, "feed_forward": 256, "encoder_layers": 2, "decoder_layers": 3, "levels": 3,
    "swin_width": 32, "depths": [2, 2, 2], "swin_heads": [2, 4, 8], "maps": [1, 2],
}  # fmt: skip
TINY = {  # the released "tiny" model
    "width": 256, "heads": 8, "queries": 900, "feed_forward": 2048, "encoder_layers": 6, "decoder_layers": 6,
    "levels": 4, "swin_width": 96, "depths": [2, 2, 6, 2], "swin_heads": [3, 6, 12, 24], "maps": [1, 2, 3],
}  # fmt: skip
SMALL_TEXT = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96)
CAPTIONS = ["red square. blue circle dog. cat.", "raccoon."]
CASES = {  # sizes of the pictures, their captions, and queries: but for the first, more than cells that may be proposed
    "ordinary": ([(128, 160)], CAPTIONS[:1], 60),
    "tall": ([(440, 24)], CAPTIONS[:1], 232),
    "padded": ([(150, 26), (60, 90)], CAPTIONS[:1] * 2, 140),
    "different captions": ([(150, 26), (60, 90)], CAPTIONS, 140),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-3}
"""Of logits, dot products of 256 channels that reach tens. Boxes agree a hundred times better."""
CLOSE = {"atol": 5e-3, "rtol": 1e-3}
"""Of the full size in float32."""


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_text_encoder(SMALL_TEXT, tmp_path_factory.mktemp("text"))


def written_text_encoder(config: BertConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def request_of(case: str, dtype: torch.dtype, text_encoder: Path) -> dict[str, Any]:
    sizes, captions, queries = CASES[case]
    batch = images(*sizes)
    pictures = [pixels[:, :h, :w] for pixels, (h, w) in zip(batch["pixel_values"], sizes, strict=True)]
    return {
        "dtype": dtype, "form": SMALL | {"queries": queries}, "text_encoder": str(text_encoder), "seed": 0,
        "pictures": pictures, "captions": captions,
    }  # fmt: skip


def converted(checkpoint: Path, text_encoder: Path) -> GroundingDinoBundle:
    """By `deixis model convert`."""
    folder = checkpoint.with_suffix("")
    convert_model(ModelConvertOptions(model=str(checkpoint), output=folder, tokenizer=str(text_encoder)))
    return load_grounding_dino(folder)


def ours(bundle: GroundingDinoBundle, case: str, dtype: torch.dtype) -> tuple[dict[str, Any], Tensor]:
    """(outputs, which logits are real) of our detector, with a graph."""
    sizes, captions, _ = CASES[case]
    tokens = bundle.tokenizer(captions, padding="longest", return_tensors="pt")
    batch = images(*sizes)
    out = bundle.model.to(dtype)(
        batch["pixel_values"].to(dtype), batch["pixel_mask"], tokens["input_ids"], tokens["attention_mask"].bool()
    )
    return out, out["text_token_mask"][:, None].expand_as(out["pred_logits"])


def in_order(out: dict[str, Any], name: str) -> Tensor:
    """Of the decoder layers, first to last."""
    return torch.stack([layer[name] for layer in (*out["aux_outputs"], out)])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_every_layer_agrees(their_answer, case: str, dtype: torch.dtype, text_encoder: Path, tmp_path: Path) -> None:
    request = request_of(case, dtype, text_encoder) | {"save": str(tmp_path / "theirs.pth")}
    theirs = their_answer("groundingdino", "idea_groundingdino.py", request)
    with torch.no_grad():
        out, real = ours(converted(tmp_path / "theirs.pth", text_encoder), case, dtype)
    assert (theirs["starts"] == 1).all(-1).any(1).tolist() == [case != "ordinary"] * len(theirs["starts"])
    assert torch.equal(theirs["logits"].isfinite(), real.expand_as(theirs["logits"]))
    logits, boxes = in_order(out, "pred_logits"), in_order(out, "pred_boxes")
    gaps = (logits - theirs["logits"])[real.expand_as(logits)].abs().max(), (boxes - theirs["boxes"]).abs().max()
    print(f"{case}, {dtype}: logits {float(gaps[0]):.1e}, boxes {float(gaps[1]):.1e}")
    assert gaps[0] < TOLERANCE[dtype]
    assert gaps[1] < TOLERANCE[dtype] / 100


def targets_of(batch: int, tokens: int) -> list[Target]:
    """Two objects in each picture, of the first two tokens that are names; the last class has two tokens."""
    positive = torch.zeros(2, tokens)
    positive[0, 1], positive[1, 1:3] = 1.0, 0.5
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.9, 0.8, 0.2, 0.4]])
    ids = torch.tensor([0, 1])
    return [Target(boxes, ids, positive, (60, 90), (60, 90), index, "a test") for index in range(batch)]


def cotangents_of(out: dict[str, Any], tokens: int) -> dict[str, Tensor]:
    """What the criterion hands back to the outputs of every decoder layer."""
    leaves = [
        {name: layer[name].detach().float().requires_grad_() for name in ("pred_logits", "pred_boxes")}
        for layer in (*out["aux_outputs"], out)
    ]
    criterion = build_criterion("grounding_dino", decoder_layers=len(leaves))
    given = {**leaves[-1], "aux_outputs": leaves[:-1], "text_token_mask": out["text_token_mask"]}
    criterion.total(criterion(given, targets_of(len(out["pred_boxes"]), tokens))).backward()
    both = {"logits": "pred_logits", "boxes": "pred_boxes"}
    return {short: torch.stack([leaf[name].grad for leaf in leaves]).double() for short, name in both.items()}


@pytest.mark.parametrize("case", ["padded", "different captions"])
def test_a_steps_gradients_agree(their_answer, case: str, text_encoder: Path, tmp_path: Path) -> None:
    """The whole step's but for the encoder's own loss, of whose outputs their package keeps nothing."""
    request = request_of(case, torch.float64, text_encoder)
    their_answer("groundingdino", "idea_groundingdino.py", request | {"save": str(tmp_path / "theirs.pth")})
    bundle = converted(tmp_path / "theirs.pth", text_encoder)
    out, real = ours(bundle, case, torch.float64)
    tokens = int(out["text_token_mask"].sum(1).max())
    cotangents = cotangents_of(out, tokens)
    theirs = their_answer("groundingdino", "idea_groundingdino.py", request | {"cotangents": cotangents})
    assert (theirs["starts"] == 1).all(-1).any()

    logits, boxes = in_order(out, "pred_logits"), in_order(out, "pred_boxes")
    real = real.expand_as(logits)
    ((logits[real] * cotangents["logits"][real]).sum() + (boxes * cotangents["boxes"]).sum()).backward()
    grads = {
        file_name(name, UNTIED): torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in bundle.model.named_parameters()
    }
    found = scatter(grads, idea_table(), "gradients")
    compared = {name: (found[name] - grad).abs().max() for name, grad in theirs["gradients"].items() if name in found}
    assert len(compared) > 200
    assert [name for name in theirs["gradients"] if name not in found] == []
    assert theirs["gradients"]["transformer.decoder.ref_point_head.layers.0.weight"].abs().max() > 1e-4
    print(f"{case}: gradients {float(max(compared.values())):.1e}")
    assert max(compared.values()) < 1e-6


def test_pictures_are_prepared_alike(their_answer, tmp_path: Path) -> None:
    """Sizes, channels, scale and normalisation. PIL and OpenCV average a little differently where sizes change."""
    sizes = [(800, 1000), (480, 640), (640, 480), (300, 900), (1500, 1100)]
    rows = torch.arange(1500.0)[:, None, None]
    columns, channels = torch.arange(1000.0)[None, :, None], torch.arange(3.0)
    smooth = 127 + 60 * (rows / 170 + channels).sin() + 60 * (columns / 90).cos()
    files = []
    for height, width in sizes:
        picture = smooth[:height, : min(width, 1000)].repeat(1, 2, 1)[:, :width].round().byte().numpy()
        files.append(str(tmp_path / f"{height}x{width}.png"))
        Image.fromarray(picture).save(files[-1])
    theirs = their_answer("groundingdino", "idea_groundingdino.py", {"files": files})["preprocessed"]
    generator = np.random.default_rng(0)  # asked for, not used
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for file, size_hw, wanted in zip(files, sizes, theirs, strict=True):
        sample = load(Sample(Path(file), size_hw, Instances.none(), Vocabulary(("thing",))))
        pixels = torch.from_numpy(eval_transform(800, 1333)(sample, generator).image)
        found = ((pixels / 255 - mean) / deviation).permute(2, 0, 1)
        assert found.shape[1] == wanted.shape[1] or found.shape[2] == wanted.shape[2]
        assert abs(found.shape[1] - wanted.shape[1]) + abs(found.shape[2] - wanted.shape[2]) <= 2, size_hw
        same = found[:, : wanted.shape[1], : wanted.shape[2]] - wanted[:, : found.shape[1], : found.shape[2]]
        print(
            f"{size_hw}: {tuple(found.shape[1:])} and {tuple(wanted.shape[1:])}, {float(same.abs().mean()):.4f} apart"
        )
        assert same.abs().mean() < (1e-6 if size_hw == sizes[0] else 0.03)


def order_of(out: dict[str, Any], starts: Tensor) -> Tensor:
    """For each of our queries the rank at which theirs starts from the same box: its own but for near-ties.

    Rounding may exchange queries whose scores are nearly equal. No other exchange passes.

    Args:
        starts: their boxes, [1 queries 4], best score first.
    """
    boxes, scores = out["enc_outputs"]["pred_boxes"][0].detach(), out["enc_outputs"]["pred_logits"][0].detach()
    apart = torch.cdist(boxes, starts[0], p=torch.inf)
    order = torch.from_numpy(linear_sum_assignment(apart.numpy())[1])
    assert apart[torch.arange(len(order)), order].max() < 1e-4
    best = scores.amax(-1)
    torch.testing.assert_close(best, best[order], **CLOSE)
    return order


def test_only_queries_of_equal_score_may_change_places() -> None:
    out = {"pred_boxes": torch.rand(1, 6, 4), "pred_logits": torch.randn(1, 6, 3)}
    order = torch.tensor([0, 2, 1, 3, 4, 5])
    starts = out["pred_boxes"][:, order]
    with pytest.raises(AssertionError):
        order_of({"enc_outputs": out}, starts)
    out["pred_logits"][0, 1] = out["pred_logits"][0, 2] + 1e-4
    assert torch.equal(order_of({"enc_outputs": out}, starts), order)
    with pytest.raises(AssertionError):  # a start that is none of ours
        order_of({"enc_outputs": out}, starts + 0.01)


def in_their_order(model: nn.Module, given: tuple[Tensor, ...], starts: Tensor) -> tuple[dict[str, Any], Tensor]:
    """(our outputs, the rank of the same query in theirs). What a query starts to look for belongs to its rank, so
    that each of ours is given that of its rank in theirs."""
    with torch.no_grad():
        order = order_of(model(*given), starts)
        contents = model.get_parameter("model.query_position_embeddings.weight")
        before = contents.clone()
        contents.copy_(before[order])
        out = model(*given)
        contents.copy_(before)
    print(f"{int((order != torch.arange(len(order))).sum())} of {len(order)} queries in another order")
    return out, order


@pytest.mark.slow
def test_full_size_weights_go_round(their_answer, tmp_path: Path) -> None:
    """Saved by their code, converted, trained for a step, written back, loaded by their code."""
    text_encoder = written_text_encoder(BertConfig(), tmp_path / "text")
    request = {
        "dtype": torch.float32, "form": TINY, "text_encoder": str(text_encoder), "seed": 1,
        "pictures": [images((256, 320))["pixel_values"][0]], "captions": CAPTIONS[:1],
    }  # fmt: skip
    ask = ("groundingdino", "idea_groundingdino.py")
    theirs = their_answer(*ask, request | {"save": str(tmp_path / "theirs.pth")})
    bundle = converted(tmp_path / "theirs.pth", text_encoder)
    tokens = bundle.tokenizer(CAPTIONS[:1], return_tensors="pt")
    batch = images((256, 320))
    given = (batch["pixel_values"], batch["pixel_mask"], tokens["input_ids"], tokens["attention_mask"].bool())
    first, order = in_their_order(bundle.model, given, theirs["starts"])
    real = first["text_token_mask"][:, None].expand_as(first["pred_logits"])
    torch.testing.assert_close(first["pred_logits"][real], theirs["logits"][-1][:, order][real], **CLOSE)

    out = bundle.model(*given)
    criterion = build_criterion("grounding_dino", decoder_layers=6)
    optimizer = torch.optim.AdamW(bundle.model.parameters(), lr=1e-5)
    criterion.total(criterion(out, targets_of(1, tokens["input_ids"].shape[1]))).backward()
    optimizer.step()
    save_checkpoint(bundle, tmp_path / "ours.pth", "idea")
    back = their_answer(*ask, request | {"checkpoint": str(tmp_path / "ours.pth")})
    assert back["unexpected"] == []
    assert {name.split(".")[-1] for name in back["missing"] if "pooler" not in name} <= {
        "relative_position_index",
        "position_ids",
    }
    trained, order = in_their_order(bundle.model, given, back["starts"])
    assert (trained["pred_logits"][real] - out["pred_logits"][real]).abs().max() > 1e-2  # the step did something
    torch.testing.assert_close(trained["pred_logits"][real], back["logits"][-1][:, order][real], **CLOSE)
    assert len(all_outputs(trained)) == 7
