"""Checkpoints of IDEA-Research and MMDetection: recognised, placed in full or refused by name, written back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_layouts import to_idea, to_mmdetection
from safetensors.torch import save_file
from small_detectors import IDS, bert_tokenizer, images, perturb, prompts, small_config
from torch import Tensor, nn
from transformers import BertConfig, GroundingDinoConfig, MMGroundingDinoConfig, PreTrainedConfig, SwinConfig
from transformers.models.swin.modeling_swin import SwinPatchMerging

from deixis.errors import ModelError, OptionError
from deixis.models.grounding_dino import GroundingDino, GroundingDinoBundle, load_grounding_dino, save_grounding_dino
from deixis.models.grounding_dino.weights.convert import (
    foreign_tensors,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    wanted_tensors,
)
from deixis.models.grounding_dino.weights.key_tables import idea_table, mmdetection_table
from deixis.models.grounding_dino.weights.layouts import from_stored_form
from deixis.models.grounding_dino.weights.recognise import swin_size
from deixis.models.grounding_dino.weights.transformers_layout import Ties, file_name
from deixis.models.weight_files import Place

pytestmark = pytest.mark.slow  # models of full depth

TEXT = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96, vocab_size=30522)
FOUR_MAPS = SwinConfig(
    image_size=64, embed_dim=32, depths=[1, 1, 1, 2], num_heads=[2, 4, 8, 16], window_size=4, out_indices=[1, 2, 3, 4]
)
KINDS = {
    "idea": ("idea", small_config(text_config=TEXT)),
    "idea, untied": ("idea", small_config(text_config=TEXT, decoder_bbox_embed_share=False)),
    "mm": ("mmdetection", small_config("mm-grounding-dino", text_config=TEXT)),
    "mm, 5 levels": (
        "mmdetection",
        small_config("mm-grounding-dino", text_config=TEXT, backbone_config=FOUR_MAPS, num_feature_levels=5),
    ),
    "mm, raw dot": ("mmdetection", small_config(text_config=TEXT)),
}


def foreign(layout: str, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The test's own renaming, without the tensors that only fill a file up."""
    tensors = {file_name(name, Ties(boxes=False, classes=False)): tensor for name, tensor in state.items()}
    if layout == "idea":
        return to_idea(tensors)
    return to_mmdetection(tensors, len(config.backbone_config.out_features), config.decoder_layers)


def write(path: Path, layout: str, tensors: dict[str, Tensor], **more: Any) -> Path:
    torch.save({"model" if layout == "idea" else "state_dict": tensors} | more, path)
    return path


def model_of(kind: str) -> tuple[str, GroundingDino]:
    layout, config = KINDS[kind]
    torch.manual_seed(0)
    model = GroundingDino(config).eval()
    perturb(model)
    return layout, model


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    bert_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_loads_strictly_and_predicts_the_same(kind: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    layout, model = model_of(kind)
    path = write(tmp_path / "weights.pth", layout, foreign(layout, model.state_dict(), model.config))
    bundle = load_checkpoint(path, tokenizer_folder)
    assert read_checkpoint(path).layout == layout
    inputs = images((96, 64), (70, 90)) | prompts(*IDS)
    ours, theirs = model(**inputs), bundle.model(**inputs)
    assert torch.equal(ours["pred_logits"], theirs["pred_logits"])
    assert torch.equal(ours["pred_boxes"], theirs["pred_boxes"])
    assert bundle.source == str(path)

    save_grounding_dino(bundle, tmp_path / "folder")
    again = load_grounding_dino(tmp_path / "folder")
    assert torch.equal(again.model(**inputs)["pred_logits"], ours["pred_logits"])


WHOLE = (
    "num_feature_levels",
    "d_model",
    "num_queries",
    "encoder_layers",
    "decoder_layers",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_n_points",
    "decoder_n_points",
)
BACKBONE = ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "patch_size", "out_features", "qkv_bias")
TEXT_ENCODER = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@pytest.mark.parametrize("kind", KINDS)
def test_config_is_recognised(kind: str, tmp_path: Path) -> None:
    layout, model = model_of(kind)
    found = read_checkpoint(write(tmp_path / "w.pth", layout, foreign(layout, model.state_dict(), model.config))).config
    wanted = model.config
    assert found.model_type == wanted.model_type
    for name in WHOLE:
        assert getattr(found, name) == getattr(wanted, name), name
    for name in BACKBONE:
        assert list_of(getattr(found.backbone_config, name)) == list_of(getattr(wanted.backbone_config, name)), name
    for name in TEXT_ENCODER:
        assert getattr(found.text_config, name) == getattr(wanted.text_config, name), name
    if wanted.model_type == "grounding-dino":
        assert found.decoder_bbox_embed_share == wanted.decoder_bbox_embed_share


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def remembered(make: Any) -> Any:
    """The function, called once for the same arguments; configurations are the same if they are one object."""
    known: dict[Any, Any] = {}

    def call(*arguments: Any, **options: Any) -> Any:
        values = [*enumerate(arguments), *options.items()]
        key = tuple((name, id(v) if isinstance(v, PreTrainedConfig) else repr(v)) for name, v in values)
        return known[key] if key in known else known.setdefault(key, make(*arguments, **options))

    return call


@pytest.mark.parametrize("kind", ["idea", "mm, 5 levels"])
def test_every_kind_of_key_that_is_missing_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, model = model_of(kind)
    tensors = {k.removeprefix("module."): t for k, t in foreign(layout, model.state_dict(), model.config).items()}
    monkeypatch.setattr("deixis.models.grounding_dino.weights.convert.read_tensors", lambda path: tensors)
    # What takes time is building configurations and networks; the same are built again and again here.
    for name in ("SwinConfig", "BertConfig", "GroundingDinoConfig", "MMGroundingDinoConfig"):
        monkeypatch.setattr(f"deixis.models.grounding_dino.weights.recognise.{name}", remembered(globals()[name]))
    monkeypatch.setattr("deixis.models.grounding_dino.weights.convert.wanted_tensors", remembered(wanted_tensors))
    left_out = read_checkpoint("whole.pth").left_out
    twice = re.compile(r"(transformer\.decoder\.)?bbox_embed\..*")  # tested below
    kinds = {re.sub(r"\d+", "*", name): name for name in reversed(tensors)}  # the first layer's of each kind
    names = [name for name in kinds.values() if name not in left_out and not twice.fullmatch(name)]
    assert len(names) > 80

    def complaint(missing: list[str]) -> str:
        part = {name: tensor for name, tensor in tensors.items() if name not in missing}
        monkeypatch.setattr("deixis.models.grounding_dino.weights.convert.read_tensors", lambda path: part)
        with pytest.raises(ModelError) as caught:
            read_checkpoint("part.pth")
        assert "\n" not in str(caught.value)
        return str(caught.value) + ";"

    for start in range(0, len(names), 10):
        together = complaint(names[start : start + 10])
        for name in names[start : start + 10]:  # those that sizes are read off may end the reading at once
            assert f"missing {name};" in together or f"missing {name};" in complaint([name])


def test_a_box_head_may_stand_in_one_of_its_two_places(tmp_path: Path) -> None:
    layout, model = model_of("idea")
    tensors = foreign(layout, model.state_dict(), model.config)
    del tensors["module.transformer.decoder.bbox_embed.1.layers.0.weight"]
    read_checkpoint(write(tmp_path / "w.pth", layout, tensors))
    del tensors["module.bbox_embed.1.layers.0.weight"]
    with pytest.raises(ModelError, match=r"\(1 faults\): missing bbox_embed.1.layers.0.weight"):
        read_checkpoint(write(tmp_path / "w.pth", layout, tensors))


def test_a_box_head_must_be_the_same_in_both_places(tmp_path: Path) -> None:
    layout, model = model_of("idea")
    tensors = foreign(layout, model.state_dict(), model.config)
    key = "module.transformer.decoder.bbox_embed.1.layers.0.weight"
    tensors[key] = tensors[key] + 1
    with pytest.raises(ModelError, match=r"transformer\.decoder\.bbox_embed\.1\.layers\.0\.weight differs from bbox"):
        read_checkpoint(write(tmp_path / "w.pth", layout, tensors))


@pytest.mark.parametrize(
    ("kind", "extra"), [("idea", "transformer.stranger"), ("mm", "bbox_head.cls_branches.0.scale")]
)
def test_extra_and_misshapen_keys_are_named(kind: str, extra: str, tmp_path: Path) -> None:
    layout, model = model_of(kind)
    tensors = foreign(layout, model.state_dict(), model.config)
    tensors[extra] = torch.zeros(1)
    (norm,) = [name for name in tensors if name.endswith(("enc_output_norm.weight", "memory_trans_norm.weight"))]
    tensors[norm] = torch.zeros(7)
    (qkv,) = [
        name
        for name in tensors
        if name.endswith(("layers.1.blocks.1.attn.qkv.bias", "stages.1.blocks.1.attn.w_msa.qkv.bias"))
    ]
    tensors[qkv] = torch.zeros(10)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(write(tmp_path / "w.pth", layout, tensors))
    message = str(caught.value)
    assert f"unexpected {extra}" in message
    assert f"{norm.removeprefix('module.')} has shape (7,), expected (64,)" in message
    assert f"{qkv.removeprefix('module.')} has shape (10,), expected (64,) for a third" in message
    assert "(3 faults)" in message


def test_what_a_file_holds_besides_is_listed(tmp_path: Path) -> None:
    layout, model = model_of("mm")
    tensors = foreign(layout, model.state_dict(), model.config)
    besides = ["lmm.model.norm.weight", "connector.0.bias", "region_connector.0.bias", "image_seperate.weight"]
    besides += ["ref_point_head.layers.0.weight", "dn_query_generator.label_embedding.weight"]
    tensors |= {name: torch.zeros(2) for name in besides}
    left_out = read_checkpoint(write(tmp_path / "w.pth", layout, tensors)).left_out
    assert set(besides) <= left_out.keys()
    assert {name for name in left_out if not name.endswith("relative_position_index")} - set(besides) == {
        "language_model.language_backbone.body.model.embeddings.position_ids"
    }
    assert not any(name.startswith(("decoder.", "bbox_head.", "encoder.", "neck.")) for name in left_out)


@pytest.mark.parametrize("kind", KINDS)
def test_writing_gives_the_projects_own_names(kind: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    layout, model = model_of(kind)
    wanted = {
        name.removeprefix("module."): tensor
        for name, tensor in foreign(layout, model.state_dict(), model.config).items()
        if not name.endswith(("relative_position_index", "position_ids", "label_enc.weight", "pooler.dense.weight"))
        and "dn_query_generator" not in name
    }
    written = foreign_tensors(model, layout)
    assert written.keys() == wanted.keys()
    assert all(
        torch.equal(tensor, wanted[name]) and tensor.shape == wanted[name].shape for name, tensor in written.items()
    )

    bundle = GroundingDinoBundle(model, bert_tokenizer())
    save_checkpoint(bundle, tmp_path / "deep" / "w.pth", layout)
    again = load_checkpoint(tmp_path / "deep" / "w.pth", tokenizer_folder).model.state_dict()
    state = model.state_dict()
    assert all(torch.equal(again[name], state[name]) for name in state if "swin.layernorm" not in name)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["w.pth"]


def test_class_biases_have_no_place_in_idea_files(tmp_path: Path) -> None:
    _, model = model_of("mm")
    bundle = GroundingDinoBundle(model, bert_tokenizer())
    with pytest.raises(ModelError, match=r"no place for .*encoder_output_class_embed\.bias.*class_embed\.1\.bias"):
        save_checkpoint(bundle, tmp_path / "w.pth", "idea")
    with pytest.raises(OptionError, match="idea"):
        save_checkpoint(bundle, tmp_path / "w.pth", "detectron")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        save_checkpoint(bundle, tmp_path / "file" / "w.pth", "mmdetection")


SWIN = {
    "T": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "B": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
    "L": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}
RELEASED = [
    ("idea", GroundingDinoConfig, "T", [2, 3, 4], 4),  # groundingdino_swint_ogc.pth
    ("idea", GroundingDinoConfig, "B", [2, 3, 4], 4),  # groundingdino_swinb_cogcoor.pth
    ("mmdetection", MMGroundingDinoConfig, "T", [2, 3, 4], 4),
    ("mmdetection", MMGroundingDinoConfig, "B", [2, 3, 4], 4),
    ("mmdetection", MMGroundingDinoConfig, "L", [1, 2, 3, 4], 5),
]


@pytest.mark.parametrize(("layout", "kind", "size", "maps", "levels"), RELEASED)
def test_released_sizes(
    layout: str, kind: Any, size: str, maps: list[int], levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key of a released checkpoint is placed, and its size recognised. The tensors take no memory."""
    untied = (
        {} if kind is GroundingDinoConfig else {"decoder_bbox_embed_share": False, "decoder_cls_embed_share": False}
    )
    config = kind(backbone_config=SwinConfig(**SWIN[size], out_indices=maps), num_feature_levels=levels, **untied)
    with torch.device("meta"):
        state = {name: torch.empty(tensor.shape) for name, tensor in GroundingDino(config).state_dict().items()}
    tensors = {name: torch.zeros(()).expand(t.shape) for name, t in foreign(layout, state, config).items()}
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    monkeypatch.setattr("deixis.models.grounding_dino.weights.convert.read_tensors", lambda path: tensors)
    checkpoint = read_checkpoint("released.pth")
    found = checkpoint.config
    assert len(state) > 900
    assert found.model_type == config.model_type
    assert swin_size(found.backbone_config) == f"Swin-{size}, window {SWIN[size]['window_size']}"
    assert found.backbone_config.out_features == config.backbone_config.out_features
    shape = (found.num_feature_levels, found.num_queries, found.encoder_layers, found.decoder_layers, found.d_model)
    assert shape == (levels, 900, 6, 6, 256)
    assert (found.encoder_ffn_dim, found.decoder_ffn_dim, found.encoder_attention_heads) == (2048, 2048, 8)
    assert (found.text_config.hidden_size, found.text_config.num_attention_heads) == (768, 12)
    assert all(
        name.endswith(("index", "position_ids", "pooler.dense.weight")) or "label" in name
        for name in checkpoint.left_out
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("model.decoder.layers.4.encoder_attn_layer_norm.weight", "transformer.decoder.layers.4.norm1.weight"),
        ("model.decoder.layers.4.encoder_attn_text_layer_norm.bias", "transformer.decoder.layers.4.catext_norm.bias"),
        ("model.decoder.layers.4.self_attn_layer_norm.weight", "transformer.decoder.layers.4.norm2.weight"),
        ("model.decoder.layers.4.final_layer_norm.weight", "transformer.decoder.layers.4.norm3.weight"),
        (
            "model.decoder.layers.0.encoder_attn_text.out_proj.bias",
            "transformer.decoder.layers.0.ca_text.out_proj.bias",
        ),
        (
            "model.encoder.layers.2.fusion_layer.attn.values_text_proj.weight",
            "transformer.encoder.fusion_layers.2.attn.values_l_proj.weight",
        ),
        ("model.encoder.layers.2.fusion_layer.text_param", "transformer.encoder.fusion_layers.2.gamma_l"),
        ("model.encoder.layers.5.text_enhancer_layer.fc2.bias", "transformer.encoder.text_layers.5.linear2.bias"),
        ("model.input_proj_vision.3.1.weight", "input_proj.3.1.weight"),
        ("model.encoder_output_bbox_embed.layers.2.bias", "transformer.enc_out_bbox_embed.layers.2.bias"),
        (
            "model.backbone.conv_encoder.model.hidden_states_norms.stage4.bias",
            "backbone.0.norm3.bias",
        ),
    ],
)
def test_names_in_idea_files(ours: str, theirs: str) -> None:
    assert idea_table().place(ours) == Place(theirs, "same", 0, "")


@pytest.mark.parametrize(
    ("ours", "theirs", "form", "part"),
    [
        ("model.decoder.layers.1.self_attn_layer_norm.bias", "decoder.layers.1.norms.0.bias", "same", 0),
        ("model.decoder.layers.1.encoder_attn_text_layer_norm.bias", "decoder.layers.1.norms.1.bias", "same", 0),
        ("model.decoder.layers.1.encoder_attn_layer_norm.bias", "decoder.layers.1.norms.2.bias", "same", 0),
        ("model.decoder.layers.1.final_layer_norm.bias", "decoder.layers.1.norms.3.bias", "same", 0),
        (
            "model.decoder.layers.1.encoder_attn_text.value.weight",
            "decoder.layers.1.cross_attn_text.attn.in_proj_weight",
            "third",
            2,
        ),
        (
            "model.encoder.layers.1.text_enhancer_layer.self_attn.key.bias",
            "encoder.text_layers.1.self_attn.attn.in_proj_bias",
            "third",
            1,
        ),
        ("model.encoder.layers.1.deformable_layer.fc1.weight", "encoder.layers.1.ffn.layers.0.0.weight", "same", 0),
        ("model.input_proj_vision.2.1.weight", "neck.convs.2.gn.weight", "same", 0),
        ("model.input_proj_vision.3.0.weight", "neck.extra_convs.0.conv.weight", "same", 0),
        ("bbox_embed.5.layers.1.weight", "bbox_head.reg_branches.5.2.weight", "same", 0),
        ("model.encoder_output_bbox_embed.layers.2.weight", "bbox_head.reg_branches.6.4.weight", "same", 0),
        ("model.encoder_output_class_embed.bias", "bbox_head.cls_branches.6.bias", "one", 0),
        (
            "model.backbone.conv_encoder.model.encoder.layers.2.downsample.norm.weight",
            "backbone.stages.2.downsample.norm.weight",
            "unfolded",
            0,
        ),
        (
            "model.text_backbone.encoder.layer.11.output.dense.weight",
            "language_model.language_backbone.body.model.encoder.layer.11.output.dense.weight",
            "same",
            0,
        ),
    ],
)
def test_names_in_mmdetection_files(ours: str, theirs: str, form: Any, part: int) -> None:
    assert mmdetection_table(maps=3, decoder_layers=6).place(ours) == Place(theirs, form, part, "")


def test_patch_merging_by_unfolding() -> None:
    """MMDetection merges 2 x 2 pixels with `nn.Unfold`; with its weights reordered, Swin here gives the same."""
    torch.manual_seed(0)
    channels, height, width = 3, 6, 4
    norm, reduction = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    picture = torch.randn(2, channels, height, width)
    theirs = reduction(norm(nn.Unfold(kernel_size=2, stride=2)(picture).transpose(1, 2)))

    merging = SwinPatchMerging(channels)
    place = Place("", "unfolded", 0, "")
    merging.load_state_dict(
        {
            "norm.weight": from_stored_form(norm.weight.detach(), place),
            "norm.bias": from_stored_form(norm.bias.detach(), place),
            "reduction.weight": from_stored_form(reduction.weight.detach(), place),
        }
    )
    ours = merging(picture.flatten(2).transpose(1, 2), (height, width))
    torch.testing.assert_close(ours, theirs)


def test_other_models_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "resnet.pth", "idea", {"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    with pytest.raises(
        ModelError, match=r"resnet.pth: the tensor names \(conv1.weight, fc.bias, \.\.\.\) fit no known"
    ):
        read_checkpoint(path)
    names = {"model.backbone.conv_encoder.model.embeddings.norm.weight": torch.zeros(1)}
    save_file(names, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="weights of transformers without their config"):
        read_checkpoint(tmp_path / "model.safetensors")
    layout, model = model_of("idea")
    few = {n: t for n, t in foreign(layout, model.state_dict(), model.config).items() if "decoder" not in n}
    with pytest.raises(ModelError, match=r"incomplete one: missing transformer\.decoder\.layers\.0"):
        read_checkpoint(write(tmp_path / "few.pth", layout, few))


def test_tokenizers(tmp_path: Path, tokenizer_folder: Path) -> None:
    layout, model = model_of("idea")
    path = write(tmp_path / "w.pth", layout, foreign(layout, model.state_dict(), model.config))
    vocabulary = bert_tokenizer().get_vocab()
    (tmp_path / "only").mkdir()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    (tmp_path / "only" / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    wanted = load_checkpoint(path, tokenizer_folder).prompt_tokenizer("Red square. café.")
    for source in (tmp_path / "only", tmp_path / "only" / "vocab.txt", str(tmp_path / "only")):
        assert load_checkpoint(path, source).prompt_tokenizer("Red square. café.") == wanted
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no tokenizer can be read") as caught:
        load_checkpoint(path, tmp_path / "empty")
    assert "\n" not in str(caught.value)
