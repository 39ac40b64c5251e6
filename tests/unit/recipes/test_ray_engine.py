"""The engine without Ray: what is listed, kept and resumed, and each failure as one line."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import sys
import tarfile
import types
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.cli.main import main
from deixis.errors import DataError, OptionError, TrainingError
from deixis.options.used_models import Engine
from deixis.recipes.engine import cluster, nodes, ray_run
from deixis.recipes.engine.items import Item, dataset_items, shards_of
from deixis.recipes.engine.parts import Answer, Parts
from deixis.recipes.engine.ray_run import RayActor, all_contents, each_answer, ray_answers, sizes
from deixis.recipes.engine.sources import list_items
from deixis.recipes.engine.stores import address_of, file_system, read_range, read_row

pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


# where pictures come from


def test_an_address_keeps_its_two_slashes():
    assert address_of(Path("s3://bucket/a.jpg")) == "s3://bucket/a.jpg"
    assert address_of(Path("/photos/a.jpg")) == "/photos/a.jpg"
    assert address_of(Path("C:/photos/a.jpg")) == "C:/photos/a.jpg"


def test_a_picture_is_listed_once_and_read_from_wherever_it_is(photo, tmp_path):
    memory = file_system("memory")
    memory.pipe("/set/b.png", photo.read_bytes())
    memory.pipe("/set/readme.md", b"no picture")
    pq.write_table(pyarrow.table({"path": ["a.png"]}), tmp_path / "c.parquet")
    (tmp_path / "d.csv").write_text(f"path\n{photo}\n")
    sources = [photo, Path("memory://set/"), tmp_path / "c.parquet", tmp_path / "d.csv", Path(f"file://{photo}")]
    items = list_items(sources)
    assert [item.name for item in items] == [str(photo), "memory:///set/b.png", f"{tmp_path}/c.parquet/00000000"]
    assert all(item.picture().load().shape == (4, 6, 3) for item in items)
    assert pickle.loads(pickle.dumps(items)) == items  # noqa: S301


def test_a_folder_of_shards_and_pictures_gives_both_in_order(photo, tmp_path):
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(photo, "x/1.png")
    assert [item.name for item in list_items([tmp_path])] == [str(photo), f"{tmp_path}/b.tar/x/1.png"]


@pytest.mark.parametrize(
    ("name", "held", "line"),
    [
        ("a.tar", b"\x1f\x8b no tar", "uncompressed tar"),
        ("empty.tar", b"\0" * 10240, "no picture in this tar"),
        ("a.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("a.csv", b"colour\nred\n", "no column of pictures"),
        ("a.jsonl", b"[1\n", "cannot be read as a list"),
        ("nested.txt", b"more.parquet\n", "line 1 names 'more.parquet'; expected a picture"),
        ("blank.txt", b"\na.png\n\nmore.parquet\n", "line 4 names 'more.parquet'"),
        ("nested.csv", b"path\na.png\n\nmore.parquet\n", "line 4 names 'more.parquet'"),
        ("nested.jsonl", b'\n{"path": "more.tar"}\n', "line 2 names 'more.tar'"),
        ("a.mp4", b"", "is a video"),
        ("none.txt", b"\n", "no images to read"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line(tmp_path, name, held, line):
    (tmp_path / name).write_bytes(held)
    with pytest.raises((DataError, OptionError), match=line):
        list_items([tmp_path / name])


def test_a_store_that_is_not_there_and_one_that_is_unknown(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_range(f"file://{tmp_path}/none.png")
    with pytest.raises(OptionError, match="gopher://: cannot be read here"):
        list_items([Path("gopher://photos/")])
    pq.write_table(pyarrow.table({"image": [b"x", None]}), tmp_path / "a.parquet", row_group_size=1)
    assert read_row(f"{tmp_path}/a.parquet", 0) == b"x"
    with pytest.raises(DataError, match="row 1 has no picture"):
        read_row(f"{tmp_path}/a.parquet", 1)


# shards


@pytest.mark.parametrize(("count", "rows", "batch", "sizes"), [(0, 5, 2, []), (1, 5, 2, [1]), (13, 5, 4, [8, 5])])
def test_shards_are_of_whole_batches(count, rows, batch, sizes):
    items = dataset_items("scenes", count)
    shards = shards_of(items, rows, batch)
    assert [len(shard) for shard in shards] == sizes
    assert [item for shard in shards for item in shard] == items


def test_a_part_counts_only_for_the_same_files_and_settings(tmp_path):
    shard = [Item("a", 0, "a", (1, 2)), Item("b\udcff", 0, "b\udcff", (3, 4))]
    parts = Parts(tmp_path, {"weights": "x"}, "model")
    parts.write(0, shard, [Answer({"score": 0.1 + 0.2}), Answer(None, "b: damaged", version="1")])
    assert parts.has(0, shard)
    assert list(parts.read(0)) == [Answer({"score": 0.1 + 0.2}), Answer(None, "b: damaged", version="1")]
    assert not parts.has(1, shard)
    assert not Parts(tmp_path, {"weights": "y"}, "model").has(0, shard)
    assert not parts.has(0, [replace(shard[0], stamp=(1, 3)), shard[1]])
    parts.write(1, shard, [Answer({}), Answer({})])
    parts.finish(1)
    assert not parts.path(1).exists()
    assert [row["error"] for row in pq.read_table(tmp_path / "errors.parquet").to_pylist()] == ["b: damaged"]
    parts.path(0).write_bytes(b"cut off")
    assert not parts.has(0, shard)


@pytest.mark.parametrize("change", [{"result": "[3]"}, {"result": "{"}, {"result": "null"}, {"result": "7"}, None])
def test_a_part_with_other_values_is_one_line(tmp_path, change):
    parts, shard = Parts(tmp_path, {}, "model"), [Item("a", 0, "a")]
    parts.write(0, shard, [Answer({})])
    table = pq.read_table(parts.path(0))
    rows = table.to_pylist()
    columns = pyarrow.Table.from_pylist([rows[0] | change]) if change else table.drop_columns(["error"])
    pq.write_table(columns, parts.path(0))
    with pytest.raises(DataError, match=r"part-000000\.parquet: is damaged; remove it") as caught:
        list(parts.read(0))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_no_half_a_part(tmp_path, monkeypatch):
    def full(table, place):
        Path(place).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DataError, match=r"No space left on device.*finished shards are kept"):
        Parts(tmp_path, {}, "model").write(0, [Item("a", 0, "a")], [Answer({})])
    assert not list((tmp_path / "rows").iterdir())


# workers


def doubling(device, log):
    def work(items, batch_size):
        log.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("out of memory")
        return [Answer({"row": 2 * item.row, "device": device}) for item in items]

    return work


def test_a_worker_halves_batches_until_they_fit():
    actor, log = RayActor(pickle.dumps(partial(doubling, log=[])), "cpu", 8, "."), []
    actor.work = doubling("cpu", log)
    (pickled,) = actor({"shard": [3], "items": [pickle.dumps(dataset_items("s", 2))]})["answers"]
    assert [answer.content["row"] for answer in pickle.loads(pickled)] == [0, 2]  # noqa: S301
    assert log == [8, 4, 2]
    actor({"shard": [4], "items": [pickle.dumps(dataset_items("s", 1))]})
    assert log == [8, 4, 2, 2]


def broken(device):
    raise ValueError("a fault of ours")


def unreadable(device):
    raise DataError("model: is not there")


@pytest.mark.parametrize(
    ("make", "kind", "line"), [(broken, RuntimeError, "a fault"), (unreadable, DataError, "model")]
)
def test_what_a_worker_cannot_do_comes_back(make, kind, line):
    actor = RayActor(pickle.dumps(make), "cpu", 8, "/no/such/folder")
    (pickled,) = actor({"shard": [0], "items": [pickle.dumps([])]})["answers"]
    error = pickle.loads(pickled)  # noqa: S301
    assert isinstance(error, kind)
    assert line in str(error)


def test_one_bad_picture_is_an_error_of_its_own():
    def compute(items):
        if any(item.row == 1 for item in items):
            raise DataError("1:\nis damaged")
        return [Answer({"row": item.row}) for item in items]

    answers = each_answer(compute, dataset_items("s", 3))
    assert [answer.error is None for answer in answers] == [True, False, True]
    with pytest.raises(DataError, match="is damaged"):
        all_contents(answers)


def test_answers_come_in_order_whatever_arrives_first_or_twice(tmp_path, monkeypatch):
    arriving = [(2, "e"), (0, "ab"), (0, "ab"), (1, "cd")]
    computed = (((number, [Answer({"is": letter}) for letter in letters])) for number, letters in arriving)
    monkeypatch.setattr(ray_run, "_arriving", lambda *given, **more: computed)
    kept: dict[int, str] = {}
    answers = ray_answers(
        partial(doubling, log=[]),
        dataset_items("s", 5),
        Engine(engine="ray", shard_rows=2),
        output=tmp_path,
        made_by={},
        model="m",
        batch_size=1,
        keep=lambda index, answer: kept.__setitem__(index, answer.content["is"]),
    )
    assert [answer.content["is"] for answer in answers] == list("abcde")
    assert kept == dict(enumerate("abcde"))


@pytest.mark.parametrize(("lives", "done"), [([1, 1, 1], 3), ([1, 0], 1), ([0, 3], 3)])
def test_a_run_begins_anew_where_workers_died(tmp_path, monkeypatch, capsys, lives, done):
    """Each time with the shards that are left; twice without a shard in between is the end."""
    asked = []

    def arriving(make, shards, engine, batch_size):
        asked.append(list(shards))
        for number in list(shards)[: lives[len(asked) - 1]]:
            yield number, [Answer({"is": number})]
        if len(shards) > lives[len(asked) - 1]:
            raise cluster.WorkersDiedError("workers died")

    monkeypatch.setattr(ray_run, "_arriving", arriving)
    given = {"output": tmp_path, "made_by": {}, "model": "m", "batch_size": 1}
    answers = ray_answers(partial(doubling, log=[]), dataset_items("s", 3), Engine(engine="ray", shard_rows=1), **given)
    if done == 3:
        assert [answer.content["is"] for answer in answers] == [0, 1, 2]
    else:
        with pytest.raises(TrainingError, match="workers died"):
            list(answers)
    assert len(asked) == len(lives)
    assert len(list((tmp_path / "rows").glob("part-*"))) == done
    assert capsys.readouterr().err.count("beginning anew with the") == len(lives) - 1


@pytest.mark.parametrize(
    ("resources", "engine", "expected"),
    [
        ({}, Engine(), (1, 1, 0)),
        ({"CPU": 1}, Engine(), (1, 1, 0)),
        ({"CPU": 64}, Engine(actors=4), (4, 16, 0)),
        ({"CPU": 16, "GPU": 2}, Engine(), (2, 8, 1)),
        ({"CPU": 16, "GPU": 2}, Engine(gpus_per_actor=0.1), (20, 1, 0.1)),
        ({"CPU": 16, "GPU": 2}, Engine(gpus_per_actor=0), (8, 2, 0)),
    ],
)
def test_actors_fill_the_cluster(resources, engine, expected):
    assert sizes(resources, engine) == expected


def test_more_gpus_than_there_are():
    with pytest.raises(DataError, match="the cluster has 1 GPUs"):
        sizes({"CPU": 4, "GPU": 1}, Engine(gpus_per_actor=2))


# failures, as users see them


@pytest.fixture
def failing(tmp_path, photo, capsys, monkeypatch):
    """`detect predict --engine ray` in this process, to its one line of error."""

    def run(*more: str) -> str:
        arguments = ["detect", "predict", "--images", str(photo), "--names", "star", "--model", "builtin"]
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--output", str(tmp_path / "out"), *more])
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
        assert len(lines) == 1
        return lines[0]

    return run


def stand_in(monkeypatch, version: str) -> None:
    """A Ray of a version, as far as it is looked at."""
    module = types.ModuleType("ray")
    module.data = types.ModuleType("ray.data")
    module.is_initialized = lambda: False
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setitem(sys.modules, "ray.data", module.data)
    monkeypatch.setattr(cluster, "version", lambda name: version)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_no_ray(failing, monkeypatch):
    def absent(name):
        raise cluster.PackageNotFoundError(name)

    monkeypatch.setattr(cluster, "version", absent)
    assert "needs Ray 2.60 or later; install it with: pip install 'deixis[ray]'" in failing("--engine", "ray")


def test_an_old_ray(failing, monkeypatch):
    stand_in(monkeypatch, "2.9.3")
    assert "needs Ray 2.60 or later, found 2.9.3" in failing("--engine", "ray")


def test_an_address_where_nothing_listens(failing, monkeypatch):
    stand_in(monkeypatch, "2.60.0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    line = failing("--engine", "ray", "--address", f"127.0.0.1:{port}")
    assert f"no Ray cluster answers at 127.0.0.1:{port}" in line
    assert "expected HOST:PORT or auto, got 'head'" in failing("--engine", "ray", "--address", "head")


@pytest.mark.parametrize(
    ("says", "line"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no Ray cluster"), (None, "no Ray")]
)
def test_an_address_where_something_else_listens(says, line):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                if says:
                    connection.sendall(says)
                with suppress(OSError):
                    while connection.recv(64):
                        pass

        thread = Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(OptionError, match=line):
            cluster.require_answer(f"127.0.0.1:{server.getsockname()[1]}", limit_s=0.2)
        thread.join()


def test_a_cluster_that_wants_a_token(monkeypatch, capfd):
    """Ray's C++ says why, by itself and once a second; Python's exception does not."""

    def connect(**given):
        os.write(2, b"W gcs_client.cc: InvalidAuthToken: Authentication token is missing\n" * 3)
        raise ConnectionError("Failed to connect")

    stand_in(monkeypatch, "2.60.0")
    sys.modules["ray"].init = connect
    monkeypatch.setattr(cluster, "require_answer", lambda address: None)
    with (
        pytest.raises(OptionError, match="head:6379 wants its token; set RAY_AUTH_MODE=token"),
        cluster.cluster("head:6379"),
    ):
        pass
    assert "gcs_client" not in capfd.readouterr().err


def node(number: int, **resources: float) -> dict[str, object]:
    return {"NodeID": f"n{number}", "Alive": True, "NodeManagerAddress": f"10.0.0.{number}", "Resources": resources}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ((), ({"CPU": 9}, {})),
        ((1,), ({"CPU": 6, "GPU": 3}, {nodes.NODE_ID: "!in(n1)"})),
        ((1, 3), ({"CPU": 2, "GPU": 1}, {nodes.NODE_ID: "!in(n1,n3)"})),
    ],
)
def test_nodes_where_no_worker_starts_are_left_out(monkeypatch, capsys, broken, expected):
    alive = [node(0), node(1, CPU=1), node(2, CPU=2, GPU=1), node(3, CPU=4, GPU=2), {**node(4, CPU=8), "Alive": False}]
    ray = types.SimpleNamespace(nodes=lambda: alive, cluster_resources=lambda: {"CPU": 9})
    monkeypatch.setattr(
        nodes, "_broken", lambda ray, asked: [one for one in asked if one["NodeID"][1:] in map(str, broken)]
    )
    assert nodes.usable_nodes(ray) == expected
    assert capsys.readouterr().err.count("left out: no worker starts on 10.0.0.1") == bool(broken)


def test_no_node_where_a_worker_starts(monkeypatch):
    ray = types.SimpleNamespace(nodes=lambda: [node(1, CPU=1), node(2, CPU=1)])
    monkeypatch.setattr(nodes, "_broken", lambda ray, asked: asked)
    with pytest.raises(DataError, match=r"no worker starts on 10.0.0.1, 10.0.0.2; is the disk"):
        nodes.usable_nodes(ray)


def test_options_of_ray_need_ray(failing):
    assert "--address: expected --engine ray beside it" in failing("--address", "auto")
    assert "--track: expected --engine local" in failing("--engine", "ray", "--track")
    assert "--device: expected --gpus-per-actor" in failing("--engine", "ray", "--device", "cpu")


@pytest.mark.parametrize(
    ("kind", "text", "error", "line"),
    [
        ("OutOfDiskError", "Local disk is full", DataError, "the disk of a node is full"),
        ("RayTaskError", "OSError: [Errno 28] No space left on device", DataError, "the disk of a node is full"),
        ("OutOfMemoryError", "Task was killed", DataError, "ran out of memory"),
        ("ActorDiedError", "The actor died", TrainingError, "workers died again and again"),
        ("RaySystemError", "lost", TrainingError, "lost"),
    ],
)
def test_what_ray_raises_is_one_line(kind, text, error, line):
    theirs = type(kind, (Exception,), {"__module__": "ray.exceptions"})
    with pytest.raises(error, match=line) as raised, cluster.ray_failures():
        raise theirs(text + "\nwith more lines")
    assert "\n" not in str(raised.value)
    with pytest.raises(KeyError), cluster.ray_failures():
        raise KeyError("a fault of ours")
