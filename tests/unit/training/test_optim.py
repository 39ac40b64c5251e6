"""AdamW's groups."""

import pytest
import torch
from small_detectors import small_config
from small_segmenters import tiny_segmenter
from torch import nn

from deixis.errors import TrainingError
from deixis.models.freezing import PARTS, freeze, part_of
from deixis.models.grounding_dino import GroundingDino
from deixis.training.checkpoint import Progress
from deixis.training.optim import build_adamw, is_decayed, parameter_groups, set_learning_rate, start_late_groups

RATES = {"backbone": 1e-5, "text": 1e-6, "encoder": 1e-4, "decoder": 1e-4, "heads": 1e-4}


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def detector(request):
    return GroundingDino(small_config(request.param))


def groups_of(model):
    return parameter_groups(model.named_parameters(), part_of, RATES, weight_decay=1e-4)


def test_rates_cover_the_detector_s_parts():
    assert set(RATES) == set(PARTS)


def test_every_parameter_is_in_exactly_one_group(detector):
    grouped = [id(parameter) for group in groups_of(detector) for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in detector.parameters()}


def test_each_part_has_its_rate(detector):
    for group in groups_of(detector):
        for name in group["parameter_names"]:
            assert group["lr"] == group["full_lr"] == RATES[part_of(name)]


def test_norms_biases_and_position_tables_do_not_decay(detector):
    decay = {name: group["weight_decay"] for group in groups_of(detector) for name in group["parameter_names"]}
    modules = dict(detector.named_modules())
    for name, value in decay.items():
        owner = modules[name.rpartition(".")[0]]
        spared = name.endswith("bias") or isinstance(owner, nn.LayerNorm | nn.GroupNorm) or "bias_table" in name
        spared = spared or ".position_embeddings" in name  # of the text encoder
        assert value == (0.0 if spared or decay_is_moot(detector, name) else 1e-4), name
    assert 0.0 in decay.values()
    assert 1e-4 in decay.values()


def decay_is_moot(model, name):
    """Vectors that are neither norm nor bias (layer scales)."""
    return model.get_parameter(name).ndim == 1


def test_absolute_position_embedding_does_not_decay():
    assert not is_decayed("backbone.absolute_pos_embed", torch.zeros(1, 49, 8))
    assert is_decayed("backbone.patch_embed.weight", torch.zeros(8, 3, 4, 4))


def test_absolute_positions_of_a_real_swin_do_not_decay():
    config = small_config()
    config.backbone_config.use_absolute_embeddings = True
    config.backbone_config.image_size = 64
    model = GroundingDino(config)
    decayed = {name for name, weight in model.named_parameters() if is_decayed(name, weight)}
    tables = {name for name, _ in model.named_parameters() if "position" in name and "weight" not in name}
    assert any(name.endswith("swin.embeddings.position_embeddings") for name in tables)
    assert not decayed & tables
    assert "model.query_position_embeddings.weight" in decayed
    assert any(name.endswith("patch_embeddings.projection.weight") for name in decayed)
    spared = [group for group in groups_of(model) if group["weight_decay"] == 0]
    assert any("position_embeddings" in name for group in spared for name in group["parameter_names"])


def test_position_tables_of_a_segmenter_do_not_decay():
    weights = dict(tiny_segmenter(0).model.named_parameters())
    tables = {name for name in weights if name.endswith((".position_embeddings", "pos_embed", "pos_embed_window"))}
    assert len(tables) == 3  # of the two vision encoders
    assert not any(is_decayed(name, weights[name]) for name in tables)
    assert is_decayed("vlm.model.language_model.embed_tokens.weight", torch.zeros(4, 4))


def test_frozen_parameters_are_left_out():
    model = GroundingDino(small_config())
    freeze(model, ["backbone", "text"])
    names = [name for group in groups_of(model) for name in group["parameter_names"]]
    assert {part_of(name) for name in names} == {"encoder", "decoder", "heads"}


def test_a_shared_parameter_comes_once():
    shared = nn.Linear(2, 2)
    pairs = [("heads.0", shared.weight), ("heads.1", shared.weight)]
    groups = parameter_groups(pairs, lambda name: "heads", RATES, weight_decay=0.0)
    assert [group["parameter_names"] for group in groups] == [["heads.0"]]


def test_nothing_trainable_is_an_error():
    weight = nn.Parameter(torch.zeros(2), requires_grad=False)
    with pytest.raises(TrainingError, match="nothing is trainable"):
        parameter_groups([("a", weight)], lambda name: "heads", RATES, weight_decay=0.0)


def test_a_part_without_a_rate_is_an_error():
    with pytest.raises(TrainingError, match="'wings'"):
        parameter_groups([("a", nn.Parameter(torch.zeros(2)))], lambda name: "wings", RATES, weight_decay=0.0)


def test_factor_scales_every_part(detector):
    optimizer = build_adamw(groups_of(detector))
    rates = set_learning_rate(optimizer, 0.5)
    assert rates == {part: pytest.approx(rate / 2) for part, rate in RATES.items()}
    assert set_learning_rate(optimizer, 1.0) == RATES


def test_late_groups_start_where_the_loss_stops_falling():
    early, late = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = parameter_groups([("a", early), ("b", late)], {"a": "heads", "b": "encoder"}.get, RATES, weight_decay=0.1)
    next(group for group in groups if group["name"].startswith("encoder"))["first_update"] = 50
    optimizer, progress, started = build_adamw(groups), Progress(), []
    for mean in (9.0, 5.0, 4.99, 4.0, 3.99, 3.98, 3.97, 1.0):
        for _ in range(2):
            progress.count_step(updated=True)
            progress.loss_sum += mean
        started.append(progress.end_epoch() and start_late_groups(optimizer, progress.updates))
        assert progress.end_epoch() == (progress.level_epochs >= 3), "a resumed run ends an epoch twice"
        progress.step_in_epoch = 0
    assert started == [False] * 6 + [True, False]
    again = build_adamw([{**group, "params": [nn.Parameter(torch.ones(2, 2))]} for group in groups])
    again.load_state_dict(optimizer.state_dict())
    assert set_learning_rate(again, 1.0, 14)["encoder"] == RATES["encoder"], "kept with the optimiser's state"
    assert set_learning_rate(again, 1.0, 13)["encoder"] == 0


def test_a_late_group_stays_as_it_is_until_its_first_update():
    early, late = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = parameter_groups([("a", early), ("b", late)], {"a": "heads", "b": "encoder"}.get, RATES, weight_decay=0.1)
    next(group for group in groups if group["name"].startswith("encoder"))["first_update"] = 2
    optimizer = build_adamw(groups)
    rates = []
    for update in range(3):
        before = late.detach().clone()
        rates.append(set_learning_rate(optimizer, 1.0, update)["encoder"])
        for weight in (early, late):
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert torch.equal(late, before) == (update < 2)
    assert rates == [0.0, 0.0, RATES["encoder"]]
    assert (early != 1).all()
