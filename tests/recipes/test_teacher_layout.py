"""`--teacher-layout sa2va`: a run started from a released folder ends as one."""

from __future__ import annotations

import json

import pytest
import torch
from qwen_segmenters import QWENS, qwen_segmenter, write_released_qwen
from released_segmenters import released_bundle, write_released
from tiny_refer_runs import refer_arguments, write_tiny_segmenter

from deixis.models.folders import read_weights
from deixis.models.model_record import read_record
from deixis.models.sa2va import load_sa2va, read_released, save_sa2va

pytestmark = pytest.mark.slow  # whole runs

LANGUAGES = ("Qwen2ForCausalLM", "InternLM2ForCausalLM")
QUICK = ("--max-steps", "1", "--no-baseline", "--teacher-layout", "sa2va")


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_teacher_is_a_released_folder(deixis, tmp_path, language) -> None:
    base = tmp_path / "released"
    theirs = write_released(released_bundle(language), language, base)
    (base / "modeling_sa2va_chat.py").write_text("# their code\n")
    behaviour = "sa2va" if language == LANGUAGES[0] else "deixis"
    code, _, err = deixis(refer_arguments(base, tmp_path, *QUICK, "--behaviour", behaviour))
    assert code == 0, err
    run = tmp_path / "segmenter"
    teacher, best = run / "teachers/sa2va", run / "checkpoints/best"
    assert (teacher / "modeling_sa2va_chat.py").read_text() == "# their code\n"
    assert json.loads((teacher / "config.json").read_text()) == json.loads((base / "config.json").read_text())
    assert not (teacher / "vlm").exists()
    mine, kept = read_released(teacher).model.state_dict(), load_sa2va(best).model.state_dict()
    assert mine.keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in mine.items())
    written = read_weights(teacher)
    assert written.keys() == theirs.keys()
    assert any(not torch.equal(tensor, theirs[name]) for name, tensor in written.items()), "it has learned"
    assert read_record(teacher).metrics
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("kind", QWENS)
def test_a_released_qwen_trains_a_step_and_is_written_back(deixis, tmp_path, kind) -> None:
    base = tmp_path / "released"
    theirs = write_released_qwen(qwen_segmenter(kind), base)
    (base / "modeling_sa2va_qwen.py").write_text("# their code\n")
    code, _, err = deixis(refer_arguments(base, tmp_path, *QUICK, "--no-report"))
    assert code == 0, err
    teacher = tmp_path / "segmenter/teachers/sa2va"
    for name in ("config.json", "preprocessor_config.json", "modeling_sa2va_qwen.py"):
        assert (teacher / name).read_text() == (base / name).read_text()
    written = read_weights(teacher)
    assert written.keys() == theirs.keys()
    moved = {name for name, tensor in written.items() if not torch.equal(tensor, theirs[name])}
    assert any(name.startswith("model.model.language_model.layers.") for name in moved)
    assert any(name.startswith("model.model.visual.merger.") for name in moved)
    assert not any(name.startswith("model.model.visual.blocks.") for name in moved)
    assert load_sa2va(teacher).blocks is not None
    code, _, err = deixis(refer_arguments(base, tmp_path, *QUICK, "--caption-share", "0.5", "--experiment-name", "b"))
    assert code == 2
    assert "segmenters take no regions" in err.splitlines()[-1]


def test_a_model_of_deixis_with_a_released_form(deixis, tmp_path) -> None:
    save_sa2va(released_bundle(LANGUAGES[0]), tmp_path / "mine")
    code, _, err = deixis(refer_arguments(tmp_path / "mine", tmp_path, *QUICK, "--no-report"))
    assert code == 0, err
    read_released(tmp_path / "segmenter/teachers/sa2va")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("memory", "SAM 2 with its memory"),
        ("points", "prompts of this model point first"),
        ("outlines", "spatial tokens"),
    ],
    ids=["memory", "points", "outlines"],
)
def test_no_released_form_is_one_line_at_the_start(deixis, tmp_path, what, message, dry) -> None:
    if what == "memory":
        write_tiny_segmenter(tmp_path / "mine")
    else:
        bundle = released_bundle(LANGUAGES[0])
        if what == "points":
            bundle.model.sam.config.points_first = True
        else:
            bundle.model.add_spatial_token()
        save_sa2va(bundle, tmp_path / "mine")
    code, _, err = deixis(refer_arguments(tmp_path / "mine", tmp_path, *QUICK, *dry))
    assert code == 2
    (line,) = [line for line in err.splitlines() if "warning" not in line]
    assert "--teacher-layout sa2va: " in line
    assert message in line
    assert not (tmp_path / "segmenter").exists()
