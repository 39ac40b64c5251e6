"""`deixis data check`: every damage is found, nothing else is, and the cleaned copy is sound."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_sets import DamagedSet
from local_hub import use_local_hub
from PIL import Image

from deixis.cli.main import main, run
from deixis.data.checks.limits import ModelLimits
from deixis.data.checks.prompts import examine_prompts
from deixis.data.findings import KINDS, Findings
from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_dataset
from deixis.data.pixels.images import load
from deixis.errors import DataError
from deixis.recipes.data.check import model_limits

ABOUT_NAMES = {"class_unused", "class_rare", "class_untrained", "class_unmeasured", "name_fragmented", "prompt_chunks"}


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Any:
    """`deixis data check --json`: a function from arguments to (exit code, the parsed JSON)."""

    def run_check(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run(["data", "check", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run_check


def is_at(finding: dict[str, Any], where: str) -> bool:
    in_place = re.search(re.escape(where) + r"(?!\d)", finding["place"])
    return finding["file"].endswith(where) or in_place is not None


def kinds(report: dict[str, Any]) -> Counter[str]:
    return Counter(finding["kind"] for finding in report["findings"])


@pytest.fixture(scope="module")
def damaged(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> DamagedSet:
    data = DamagedSet(shared_data, tmp_path_factory.mktemp("damaged"))
    data.damage()
    data.write()
    return data


def test_all_damage_is_found_once_and_nothing_else(damaged: DamagedSet, check: Any) -> None:
    folder = damaged.labels.parent.parent
    assert len({kind for kind, _ in damaged.expected}) > 30
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    code, report = check("--data", damaged.labels, "--val-data", damaged.val_labels)
    assert code == 1
    found = report["findings"]
    missed = [e for e in damaged.expected if not any(f["kind"] == e[0] and is_at(f, e[1]) for f in found)]
    surplus = [
        f
        for f in found
        if f["kind"] not in ABOUT_NAMES and not any(f["kind"] == kind and is_at(f, at) for kind, at in damaged.expected)
    ]
    assert missed == []
    assert surplus == []
    assert all(f["message"] and f["remedy"] and f["file"] for f in found)
    counts = Counter((f["kind"], f["file"], f["place"], f["message"]) for f in found)
    assert [line for line, count in counts.items() if count > 1] == []
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


# What is truly there in the real sets, besides classes with few objects or none and names the small tokenizer spells.
TRULY_THERE = {
    "coco_cc_instances/instances_coco_tiny_train2017.json": {},
    "coco_cc_instances/instances_tiny_coco_train.json": {"image_empty": 2},
    "coco_cc_instances/instances_tiny_coco_val.json": {},
    "fruits_nuts_labelme/images": {},
    "tree_crowns_aerial_voc": {"objects_over_measured": 1},
    "raccoon_voc": {"image_repeated": 4, "copies_disagree": 4, "image_near": 3},
}


@pytest.mark.parametrize("name", TRULY_THERE)
def test_real_sets_have_what_is_truly_there(shared_data: Path, name: str, check: Any) -> None:
    code, report = check("--data", shared_data / name)
    assert {kind: n for kind, n in kinds(report).items() if kind not in ABOUT_NAMES} == TRULY_THERE[name]
    assert code == 0


def test_classes_are_counted(shared_data: Path, check: Any) -> None:
    path = shared_data / "coco_cc_instances" / "instances_coco_tiny_train2017.json"
    content = json.loads(path.read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    counts = Counter(names[row["category_id"]] for row in content["annotations"] if not row["iscrowd"])
    _, report = check("--data", path)

    def told(kind: str) -> set[str]:
        return {f["place"].removeprefix("class ").strip("'") for f in report["findings"] if f["kind"] == kind}

    assert told("class_unused") == set(names.values()) - set(counts)
    assert told("class_rare") == {name for name, count in counts.items() if count < 10}
    assert report["classes"] == {name: counts[name] for name in names.values()}


def test_the_fixed_copy_is_sound(damaged: DamagedSet, tmp_path: Path, check: Any) -> None:
    fixed = tmp_path / "fixed"
    both = ("--val-data", damaged.val_labels)
    code, _ = check("--data", damaged.labels, *both, "--fix", fixed, "--image-files", "link")
    assert code == 0  # all errors mended
    code, report = check("--data", fixed, *both)
    assert code == 0
    left = {"image_empty", "image_crowd_only", "image_near", "leak_near", "box_two_classes", "box_tiny", "mask_off_box"}
    assert set(kinds(report)) - ABOUT_NAMES == left | {"name_delimiter", "exif_rotated"}
    for line in ("box cut to the image", "object removed", "merged into 'person'", "left as it is:"):
        assert line in (fixed / "fixes.txt").read_text()


def test_a_fix_keeps_what_is_sound_and_scales_what_was_resized(
    shared_data: Path, damaged: DamagedSet, tmp_path: Path, check: Any
) -> None:
    whole = read_dataset(shared_data / "coco_cc_instances" / "instances_coco_tiny_train2017.json")
    check("--data", damaged.labels, "--fix", tmp_path / "fixed")
    fixed = read_dataset(tmp_path / "fixed")
    assert fixed.vocabulary.names[:80] == whole.vocabulary.names
    before = {whole[i].image_id: whole[i] for i in range(len(whole))}
    kept, halved = 0, 0
    for index in range(len(fixed)):
        sample = load(fixed[index])
        old = before.get(sample.image_id)
        if old is None:
            continue
        count, ratio = len(old.instances), sample.size_hw[0] / old.size_hw[0]
        boxes = sample.instances.boxes_xyxy_px[:count]
        np.testing.assert_allclose(boxes, old.instances.boxes_xyxy_px * ratio, atol=1e-6)
        np.testing.assert_array_equal(sample.instances.class_ids[:count], old.instances.class_ids)
        kept, halved = kept + 1, halved + (ratio == 0.5)
    assert (kept, halved) == (14, 1)  # of 19, without the missing, 2 unreadable and 2 of one id


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "malformed JSON"),
        ("[]", "holds a list"),
        ('{"images": 3}', "no list of objects under 'images'"),
        ('{"images": [], "annotations": [], "categories": []}', "'images' is empty"),
        (
            '{"images": [{"id": 1, "file_name": "no.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "no",
        ),
        ('{"images": [3], "annotations": [null], "categories": ["a"]}', "'images' is empty"),
        ("\x00\x01", "malformed JSON"),
    ],
)
def test_what_is_no_data_set_is_one_line(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", "--data", str(tmp_path / "labels.json")])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert stopped.value.code == 2
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--data is required, as in --data labels.json"),
        (["--data", "absent.json"], "absent.json: no such file"),
        (["--data", "scenes:split=demo_train,count=2", "--fix", "x"], "--fix: expected data from files, got generated"),
        (["--data", "scenes:split=demo_train,count=2", "--model", "absent_model"], "absent_model"),
        (["--data", "scenes:split=demo_train,count=2", "--show", "-1"], "--show: expected 0 or more, got -1"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", *arguments])
    errors = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(errors) == 1
    assert said in errors[0]


def test_generated_scenes_are_sound(check: Any) -> None:
    code, report = check("--data", "scenes:split=demo_train,count=3,seed=1", "--workers", "0")
    assert code == 0
    assert set(kinds(report)) <= ABOUT_NAMES | {"image_near"}


def test_text_is_grouped_by_severity(damaged: DamagedSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "--data", str(damaged.labels), "--show", "1"]) == 1
    out = capsys.readouterr().out
    places = [out.index(f"\n{severity}s: ") for severity in ("error", "warning", "note")]
    assert places == sorted(places)
    assert "boxes that are not four finite numbers: 3 (box_malformed)" in out
    assert "… and 2 more (--show 0 lists all)" in out


# Each other format: what is written by our own writer, then damaged in its files.


def in_format(shared_data: Path, folder: Path, format: str) -> Path:
    source = read_dataset(shared_data / "coco_cc_instances" / "instances_tiny_coco_val.json")
    return write_dataset(source, folder, format)


def replace_in(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def damage_voc(folder: Path) -> None:
    one, two = sorted((folder / "Annotations").iterdir())
    replace_in(one, "<xmin>", "<xmin>x")
    replace_in(one, "<width>", "<width>1")
    two.write_text(two.read_text()[:300])


def damage_yolo(folder: Path) -> None:
    one, two = sorted((folder / "labels" / "train").iterdir())
    one.write_text(
        one.read_text() + "999 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\n0 0.5\n0 0.99 0.5 0.2 0.2\n0 0.5 0.5 0 0\n"
    )
    two.write_bytes(b"\xff\xfe\x00")


def damage_odvg(folder: Path) -> None:
    lines = (folder / "annotations.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["detection"]["instances"][0]["bbox"][0] = -300
    first["width"] += 1
    (folder / "annotations.jsonl").write_text("\n".join([json.dumps(first), lines[1][:50], "[]", lines[1]]))


def damage_labelme(folder: Path) -> None:
    one, two = sorted(folder.glob("*.json"))
    content = json.loads(one.read_text())
    content["imageHeight"] += 200
    one.write_text(json.dumps(content))
    replace_in(two, '"points": [[', '"points": [["x", 1], [')


def damage_openimages(folder: Path) -> None:
    file = next(file for file in folder.rglob("*.csv") if "XMin" in file.read_text())
    lines = file.read_text().splitlines()
    fields = lines[1].split(",")
    label = lines[0].split(",").index("LabelName")
    corner = lines[0].split(",").index("XMin")
    unknown, far = list(fields), list(fields)
    unknown[label], far[corner] = "/m/none", "7"
    file.write_text("\n".join([*lines, ",".join(unknown), ",".join(far)]) + "\n")


DAMAGED = {
    "voc": (damage_voc, {"record_malformed": 1, "size_mismatch": 1, "file_malformed": 1, "image_not_listed": 0}),
    "yolo": (
        damage_yolo,
        {"record_malformed": 3, "file_malformed": 1, "box_outside": 1, "box_degenerate": 1, "image_empty": 1},
    ),
    "odvg": (damage_odvg, {"record_malformed": 2, "box_outside": 1, "size_mismatch": 1}),
    "labelme": (damage_labelme, {"size_mismatch": 1, "file_malformed": 1}),
    "openimages": (damage_openimages, {"record_malformed": 2}),
}


@pytest.mark.parametrize("format", DAMAGED)
def test_other_formats_collect_everything(shared_data: Path, tmp_path: Path, format: str, check: Any) -> None:
    data = in_format(shared_data, tmp_path / format, format)
    change, wanted = DAMAGED[format]
    change(tmp_path / format)
    with pytest.raises(DataError):
        read_dataset(data)
    code, report = check("--data", data)
    found = {kind: n for kind, n in kinds(report).items() if kind not in ABOUT_NAMES}
    assert found == {kind: n for kind, n in wanted.items() if n}
    assert code == 1
    code, _ = check("--data", data, "--fix", tmp_path / "fixed")
    assert code == 0
    again, report = check("--data", tmp_path / "fixed", "--format", format)
    assert again == 0
    assert set(kinds(report)) <= ABOUT_NAMES | {"image_empty"}


def test_parquet_rows_are_collected(shared_data: Path, tmp_path: Path, check: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = in_format(shared_data, tmp_path / "parquet", "parquet")
    (file,) = (tmp_path / "parquet").rglob("*.parquet")
    table = parquet.read_table(file)
    rows = table.to_pylist()
    rows[0]["objects"]["category"][0] = 4000
    rows[1]["objects"]["bbox"][0] = [-50.0, 1.0, 80.0, 40.0]
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), file)
    code, report = check("--data", data)
    assert code == 1
    assert {kind: n for kind, n in kinds(report).items() if kind not in ABOUT_NAMES} == {
        "record_malformed": 1,
        "box_outside": 1,
    }
    assert check("--data", data, "--fix", tmp_path / "fixed")[0] == 0
    assert len(read_dataset(tmp_path / "fixed")) == 1


def test_a_damaged_embedded_image_is_named(shared_data: Path, tmp_path: Path, check: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = in_format(shared_data, tmp_path / "parquet", "parquet")
    (file,) = (tmp_path / "parquet").rglob("*.parquet")
    table = parquet.read_table(file)
    rows = table.to_pylist()
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:9000]
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), file)
    code, report = check("--data", data)
    assert code == 1
    (finding,) = [f for f in report["findings"] if f["kind"] == "image_unreadable"]
    assert "row 1" in finding["place"]
    assert check("--data", data, "--fix", tmp_path / "fixed")[0] == 0
    assert len(read_dataset(tmp_path / "fixed")) == 1


def test_lvis_lists_are_collected(tmp_path: Path, check: Any) -> None:
    for name, level in (("a.png", 10), ("b.png", 200)):
        Image.new("RGB", (60, 40), (level, 90, 250 - level)).save(tmp_path / name)
    image = {"width": 60, "height": 40, "not_exhaustive_category_ids": []}
    content = {
        "images": [
            image | {"id": 1, "file_name": "a.png", "neg_category_ids": [2, 999]},
            image | {"id": 2, "file_name": "b.png", "neg_category_ids": [2]},
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 30, 30], "area": 900} for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "star"}, {"id": 2, "name": "fish"}],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    code, report = check("--data", tmp_path / "lvis.json")
    assert code == 1
    (finding,) = [f for f in report["findings"] if f["severity"] == "error"]
    assert (finding["kind"], finding["place"]) == ("record_malformed", "image 1")
    assert "999" in finding["message"]


class LetterPairs:
    """A tokenizer for tests: pairs of letters are tokens, `ö` is unknown to it."""

    unknown_id = 1

    def __call__(self, text: str, /) -> tuple[list[int], list[tuple[int, int]]]:
        ids, offsets = [2], [(0, 0)]
        for word in re.finditer(r"[^\s.]+|\.", text.lower()):
            for start in range(word.start(), word.end(), 2):
                end = min(start + 2, word.end())
                piece = text.lower()[start:end]
                ids.append(1 if "ö" in piece else 10 + hash(piece) % 10**9)
                offsets.append((start, end))
        return [*ids, 3], [*offsets, (0, 0)]


def doctored(names: list[str], limit: int = 20) -> tuple[Counter[str], Any, list[Any]]:
    findings = Findings()
    facts = examine_prompts(names, LetterPairs(), {}, "labels.json", findings, limit)
    return Counter(f.kind for f in findings.found), facts, findings.found


def test_the_doctor_counts_tokens_and_prompts() -> None:
    found, facts, _ = doctored(["ab", "abcd", "abcd ef", "ef"], limit=9)
    assert facts.pieces["abcd ef"] == ("ab", "cd", "ef")
    assert facts.tokens == 2 + 2 + 3 + 4 + 2
    assert facts.prompts == 2  # 2 + 3 tokens, then 4 + 2, within 9 - 2
    assert found == {"prompt_chunks": 1}
    assert doctored(["ab", "abcd", "abcd ef", "ef"], limit=13)[1].prompts == 1


def test_the_doctor_knows_names_that_cannot_be_told_apart() -> None:
    assert doctored(["AB", "ab"])[0] == {"names_same_tokens": 1}
    found, _, told = doctored(["größe", "ab"])
    assert found == {"name_unknown": 1}
    assert "'ö" in told[0].message


def test_the_doctor_sees_fragments_word_by_word() -> None:
    found, _, told = doctored(["ab abcdef"])
    assert found == {"name_fragmented": 1}
    assert told[0].message == "'abcdef' is read in 3 pieces: ab cd ef"
    assert doctored(["ab cd ef gh"])[0] == {}


def test_the_doctor_refuses_what_no_prompt_holds() -> None:
    assert doctored(["?", "abcdefabcdef"], limit=6)[0] == {"name_wordless": 1, "prompt_too_long": 1}


def test_every_kind_says_what_to_do() -> None:
    assert all(kind.title and kind.remedy for kind in KINDS.values())


def _voc(folder: Path, corners: str, name: str = "<name>cat</name>") -> Path:
    for number in range(3):
        Image.new("RGB", (64, 48)).save(folder / f"{number}.png")
        box = "".join(
            f"<{key}>{value}</{key}>"
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=True)
        )
        text = (
            f"<annotation><filename>{number}.png</filename><object>{name}<bndbox>{box}</bndbox></object></annotation>"
        )
        (folder / f"{number}.xml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("corners", "kind"), [("0.1 0.2 0.6 0.9", "boxes_shares"), ("50 40 400 300", "boxes_elsewhere")]
)
def test_boxes_in_another_frame_are_an_error_and_are_not_clipped(
    tmp_path: Path, corners: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _voc(tmp_path, corners)
    with pytest.raises(DataError, match="the boxes are in another frame, so nothing is written"):
        run(["data", "check", "--data", str(data), "--fix", str(tmp_path / "fixed")])
    assert KINDS[kind].title in capsys.readouterr().out
    assert not (tmp_path / "fixed").exists()


def test_a_few_boxes_outside_are_no_other_frame(tmp_path: Path, check: Any) -> None:
    data = _voc(tmp_path, "5 5 30 30")
    (data / "0.xml").write_text((data / "0.xml").read_text().replace("<xmax>30<", "<xmax>900<"))
    assert kinds(check("--data", data)[1])["box_far_outside"] == 1
    assert not kinds(check("--data", data)[1])["boxes_elsewhere"]


def test_why_nothing_can_be_read_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="none of its 3 XML files has an object that can be used"):
        run(["data", "check", "--data", str(_voc(tmp_path, "5 5 30 30", name=""))])
    assert "has no <name>" in capsys.readouterr().out


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path: Path, check: Any) -> None:
    data = _voc(tmp_path, "5 5 30 30")
    for file in data.glob("*.xml"):  # then the picture is not opened for its size
        size = "<size><width>64</width><height>48</height></size>"
        file.write_text(file.read_text().replace("<annotation>", f"<annotation>{size}"))
    (data / "1.png").unlink()
    os.mkfifo(data / "1.png")
    code, report = check("--data", data)
    assert code == 1
    assert kinds(report)["image_unreadable"] == 1
    with pytest.raises(DataError, match="is a pipe"):
        run(["data", "diff", "--data", str(data), str(data)])


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_limits_are_those_of_the_model(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_queries": 70}))
    size = {"size": {"shortest_edge": 320, "longest_edge": 500}}
    (folder / file).write_text(json.dumps(size if file.startswith("pre") else {"image_processor": size}))
    (folder / "model.safetensors").write_bytes(b"")
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/model": folder})
    for name in (str(folder), "me/model"):
        assert model_limits(name) == ModelLimits(70, image_size=(320, 500), whose=name)
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "no weights are needed"
    for name in ("", "bert-base-uncased", "me/absent", str(tmp_path)):
        assert model_limits(name) == ModelLimits()
