"""`--engine ray`: row for row what the local engine gives, also when workers die; one Ray for the whole file."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_predict_resumes import content
from tiny_refer_runs import write_tiny_segmenter
from tiny_runs import write_coco

from deixis.errors import DataError
from deixis.options.annotate import AnnotateOptions
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.refer_caption import ReferCaptionOptions
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.recipes.annotate import annotate
from deixis.recipes.detect.evaluate import evaluate_detector
from deixis.recipes.detect.predict import predict_detector
from deixis.recipes.engine import ray_run
from deixis.recipes.engine.parts import Parts
from deixis.recipes.refer.caption import caption_masks
from deixis.recipes.refer.cycle import cycle_masks

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'deixis[ray]'")
pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

OWN = ("rows/", "errors.parquet")
SHORT = {"batch_size": 2, "max_tiles": 1, "max_new_tokens": 3}


@pytest.fixture(scope="module", autouse=True)
def small_cluster():
    for attempt in range(3):  # Ray by itself waits 30 s, too short on a busy machine
        try:
            ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
            break
        except Exception:
            ray.shutdown()
            if attempt == 2:
                raise
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures, the sixth of them damaged."""
    folder = write_coco(tmp_path_factory.mktemp("data"), count=12).parent / "images"
    sorted(folder.iterdir())[5].write_bytes(b"\xff\xd8 no picture")
    return folder


@pytest.fixture(scope="module")
def local(tiny_model, photos, tmp_path_factory):
    """Options of a run of the local engine that is done."""
    options = DetectPredictOptions(
        model=str(tiny_model),
        images=(photos,),
        names=("star", "circle"),
        threshold=0.0,
        max_detections=5,
        batch_size=2,
        output=tmp_path_factory.mktemp("local"),
        device="cpu",
    )
    predict_detector(options)
    return options


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> str:
    return str(write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3))


def on_ray(options, output: Path, rows: int = 4, **more):
    return replace(options, engine="ray", device=None, shard_rows=rows, actors=1, output=output, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {name: held for name, held in content(folder).items() if not name.startswith(OWN)}


@pytest.mark.parametrize("seed", range(int(os.environ.get("DEIXIS_RAY_KILLS", "1"))))
def test_a_killed_worker_loses_no_row_and_repeats_none(seed, local, tmp_path, monkeypatch, capsys):
    """SIGKILL at a random moment after a random shard; the files, pictures too, are those of the local engine."""
    write, seen, chance, killed = Parts.write, [], random.Random(seed), []
    after, delay_s = (chance.randrange(4), chance.uniform(0, 0.5)) if seed else (0, 0)

    def kill():
        own = psutil.Process().children(recursive=True)
        workers = [process for process in own if "MapWorker" in process.name()]
        if workers:
            os.kill(chance.choice(workers).pid, signal.SIGKILL)
            killed.append(len(seen))

    def write_and_kill(self, number, shard, answers):
        write(self, number, shard, answers)
        if len(seen) == after:
            threading.Timer(delay_s, kill).start() if delay_s else kill()
        seen.append(number)

    monkeypatch.setattr(Parts, "write", write_and_kill)
    predict_detector(on_ray(local, tmp_path, rows=2))
    assert killed
    assert sorted(seen) == list(range(6))
    assert files(tmp_path) == files(local.output)
    rows = pq.read_table(tmp_path / "rows").to_pylist()
    assert [row["picture"] for row in rows] == sorted(map(str, local.images[0].iterdir()))
    assert {(row["row"], row["model"]) for row in rows} == {(0, local.model)}
    assert all(row["version"] for row in rows)
    (bad,) = pq.read_table(tmp_path / "errors.parquet").to_pylist()
    assert bad["source"] == rows[5]["source"]
    assert bad["error"] in capsys.readouterr().err


def test_resume_computes_what_is_not_finished(local, tmp_path, monkeypatch):
    write, seen = Parts.write, []

    def interrupted(self, number, shard, answers):
        if len(seen) == 2:
            raise KeyboardInterrupt
        write(self, number, shard, answers)
        seen.append(number)

    monkeypatch.setattr(Parts, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_detector(on_ray(local, tmp_path))
    first = list(seen)
    monkeypatch.setattr(Parts, "write", lambda *given: (seen.append(given[1]), write(*given)))
    predict_detector(on_ray(local, tmp_path))
    assert sorted(seen) == [0, 1, 2]
    assert len(first) == 2
    assert files(tmp_path) == files(local.output)
    monkeypatch.setattr(ray_run, "cluster", None)  # all is done: Ray is not even started
    predict_detector(on_ray(local, tmp_path))


def test_a_tar_a_parquet_file_and_a_list_give_the_rows_of_the_folder(local, tmp_path):
    paths = sorted(local.images[0].iterdir())
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in paths[:4]:
            tar.add(path, path.name)
            tar.addfile(tarfile.TarInfo(path.stem + ".json"), io.BytesIO())
    held = [{"bytes": path.read_bytes(), "path": None} for path in paths[4:8]]
    pq.write_table(pyarrow.table({"image": held}), tmp_path / "b.parquet", row_group_size=3)
    (tmp_path / "c.txt").write_text("".join(f"{path}\n" for path in paths[8:]))
    sources = tuple(tmp_path / name for name in ("a.tar", "b.parquet", "c.txt"))
    found = predict_detector(on_ray(local, tmp_path / "out", images=sources, pictures=False))
    expected = json.loads((local.output / "predictions.json").read_text())
    made = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [one["objects"] for one in made] == [one["objects"] for one in expected]
    assert found[0].pixels().shape[:2] == found[0].size_hw
    assert not (tmp_path / "out/pictures").exists()
    rows = pq.read_table(tmp_path / "out/rows").to_pylist()
    assert [(Path(row["source"]).name, row["row"]) for row in rows] == [
        (source.name, row) for source in sources for row in range(4)
    ]


def test_a_detector_is_measured_alike(tiny_model, photos, tmp_path):
    data = write_coco(tmp_path / "data", count=5)
    options = DetectEvalOptions(
        model=str(tiny_model), data=str(data), batch_size=2, device="cpu", output=tmp_path / "local", max_detections=7
    )
    evaluate_detector(options)
    evaluate_detector(on_ray(options, tmp_path / "ray", rows=2))
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_photographs_are_annotated_alike(tiny_model, segmenter, photos, tmp_path):
    options = AnnotateOptions(
        images=tuple(sorted(photos.iterdir())[4:7]),
        names=("star",),
        detector=str(tiny_model),
        segmenter=segmenter,
        threshold=0.0,
        min_fit=0.0,
        max_objects=2,
        cycle_threshold=0.0,
        device="cpu",
        output=tmp_path / "local",
        **SHORT,
    )
    counts = annotate(options)
    assert counts["objects"] > 0
    assert counts["failed"] == 1
    assert annotate(on_ray(options, tmp_path / "ray", rows=2)) == counts
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_masks_are_described_alike(segmenter, tmp_path):
    options = ReferCaptionOptions(
        model=segmenter,
        masks="scenes:split=refer_seen,count=3,seed=1",
        temperature=0.8,
        device="cpu",
        output=tmp_path / "local",
        **SHORT,
    )
    expected = caption_masks(options)
    assert caption_masks(on_ray(options, tmp_path / "ray", rows=2)) == expected
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_the_cycle_is_closed_alike(segmenter, tmp_path):
    options = ReferCycleOptions(
        model=segmenter,
        masks="scenes:split=refer_seen,count=3,seed=1",
        threshold=0.0,
        device="cpu",
        output=tmp_path / "local",
        **SHORT,
    )
    cycle_masks(options)
    cycle_masks(on_ray(options, tmp_path / "ray", rows=2))
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_a_worker_that_fails_is_one_line(local, tmp_path):
    with pytest.raises(DataError, match="cluster has 0 GPUs"):
        predict_detector(on_ray(local, tmp_path, gpus_per_actor=1))
