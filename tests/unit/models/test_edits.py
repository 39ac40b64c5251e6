"""Model editing: the closed form, tasks in any order, and the files and commands that hold them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from local_hub import use_local_hub
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_detectors import images, perturb
from tiny_runs import train_arguments, write_tiny_model
from torch.testing import assert_close

from deixis.cli.main import main
from deixis.errors import ModelError
from deixis.models.edits.closed_form import LayerTask, edit, edited_layers, edited_weight, gathering, layer_task
from deixis.models.edits.files import Task, digest, first_weights, read_task, write_task
from deixis.models.grounding_dino import load_grounding_dino, save_grounding_dino
from deixis.models.model_record import read_record, write_record
from deixis.options.model_info import ModelInfoOptions
from deixis.recipes.model.info import model_info


def random_tasks(count, d_in=7, d_out=3, seed=0):
    """First weights, and tasks of that many tuned versions with inputs of their own."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(d_out, d_in, generator=generator)
    tasks = []
    for _ in range(count):
        inputs = torch.randn(50, d_in, generator=generator).relu()
        inputs[:, 2] = 0  # an input that is never active
        tuned = first + 0.1 * torch.randn(d_out, d_in, generator=generator)
        tasks.append((inputs, tuned))
    return first, tasks


def reference(first, tasks):
    """(K^T K + Gamma^2) W^T = K^T V + Gamma^2 W_0^T in NumPy's float64, V the outputs of the tuned layer."""
    first = first.double().numpy()
    gram = sum(k.double().numpy().T @ k.double().numpy() for k, _ in tasks)
    outputs = sum(k.double().numpy().T @ (k.double().numpy() @ w.double().numpy().T) for k, w in tasks)
    balance = np.diag(np.diag(gram) ** 0.25) ** 2
    return np.linalg.lstsq(gram + balance, outputs + balance @ first.T, rcond=None)[0].T


def test_the_closed_form_beside_float64():
    first, tasks = random_tasks(2)
    kept = [layer_task(k.T @ k, first, tuned) for k, tuned in tasks]
    found = edited_weight(first.double(), kept).numpy()
    wanted = reference(first, tasks)
    active = [i for i in range(7) if i != 2]
    np.testing.assert_allclose(found[:, active], wanted[:, active], atol=1e-6)
    assert_close(torch.from_numpy(found[:, 2]), first[:, 2].double()), "an input without energy keeps its weights"
    assert np.abs(found - first.numpy()).max() > 0.01


def test_much_energy_takes_the_tuned_weights_and_little_the_first():
    first, [(inputs, tuned)] = random_tasks(1)
    active = [i for i in range(7) if i != 2]
    for scale, wanted in ((1e3, tuned), (1e-4, first)):
        found = edited_weight(first, [layer_task((scale * inputs).T @ (scale * inputs), first, tuned)])
        assert_close(found[:, active], wanted[:, active], atol=0.01, rtol=0)


def test_no_task_is_the_first_weights_and_order_does_not_matter():
    first, tasks = random_tasks(3)
    kept = [{"a": layer_task(k.T @ k, first, tuned)} for k, tuned in tasks]
    assert torch.equal(edit({"a": first}, [])["a"], first)
    forward, backward = (edit({"a": first}, order)["a"] for order in (kept, kept[::-1]))
    assert_close(forward, backward, atol=1e-6, rtol=0)
    assert not torch.allclose(forward, edit({"a": first}, kept[:2])["a"], atol=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    bundle = load_grounding_dino(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))
    perturb(bundle.model)
    path = tmp_path_factory.mktemp("perturbed") / "base"
    save_grounding_dino(bundle, path)
    write_record(path, replace(bundle.record, names=("person",)))
    return path


@pytest.fixture(scope="module")
def tasks(folder, tmp_path_factory):
    """Files of two tasks of the model."""
    first = first_weights(load_grounding_dino(folder))
    generator = torch.Generator().manual_seed(0)
    place = tmp_path_factory.mktemp("tasks")
    for name in ("cars", "signs"):
        layers = {}
        for layer, weight in first.items():
            inputs = torch.randn(40, weight.shape[1], generator=generator).relu()
            tuned = weight + 0.1 * torch.randn(weight.shape, generator=generator)
            layers[layer] = layer_task(inputs.T @ inputs, weight, tuned)
        write_task(place / f"{name}.safetensors", Task(layers, (name[:-1], "road")), digest(first))
    return place


def test_inputs_of_every_edited_layer_are_gathered(folder):
    bundle = load_grounding_dino(folder)
    layers = edited_layers(bundle.model)
    assert len(layers) == 4, "one encoder layer with text enhancer and deformable attention, two of the decoder"
    ids = torch.tensor([[101, *bundle.prompt_tokenizer("star.")[0][1:-1], 102]])
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, out, name=name: seen.setdefault(name, []).append(inputs[0]))
        for name, layer in layers.items()
    ]
    with gathering(bundle.model) as grams, torch.inference_mode():
        bundle.model(**images((64, 64)), input_ids=ids, attention_mask=torch.ones_like(ids).bool())
    for hook in hooks:
        hook.remove()
    assert grams.keys() == layers.keys()
    for name, gram in grams.items():
        inputs = torch.cat([chunk.flatten(0, -2) for chunk in seen[name]])
        assert_close(gram, (inputs.T @ inputs).double())


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(["model", "edit", *map(str, words)])
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out, said.err


def weights_of(folder):
    return load_grounding_dino(folder).model.state_dict()


def test_tasks_are_added_listed_and_removed(folder, tasks, tmp_path, capsys):
    cars, signs = (tasks / f"{name}.safetensors" for name in ("cars", "signs"))
    assert run(capsys, "add", folder, "--tasks", cars, signs, "--output", tmp_path / "both")[0] == 0
    assert run(capsys, "add", folder, "--tasks", signs, "--output", tmp_path / "one")[0] == 0
    assert run(capsys, "add", tmp_path / "one", "--tasks", cars, "--output", tmp_path / "later")[0] == 0
    both, later = weights_of(tmp_path / "both"), weights_of(tmp_path / "later")
    assert all(torch.equal(both[name], later[name]) for name in both), "the order of adding does not matter"
    code, out, _ = run(capsys, "list", tmp_path / "both")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["cars", "signs"])
    assert run(capsys, "remove", tmp_path / "both", "--tasks", "cars", "--output", tmp_path / "rest")[0] == 0
    one, rest, base = (weights_of(path) for path in (tmp_path / "one", tmp_path / "rest", folder))
    assert all(torch.equal(one[name], rest[name]) for name in one)
    changed = {name.removesuffix(".weight") for name in one if not torch.equal(one[name], base[name])}
    assert changed == set(edited_layers(load_grounding_dino(folder).model))
    assert run(capsys, "remove", tmp_path / "rest", "--tasks", "signs", "--output", tmp_path / "none")[0] == 0
    none = weights_of(tmp_path / "none")
    assert all(torch.equal(none[name], base[name]) for name in base), "without a task the first weights are back"
    named = {name: read_record(tmp_path / name).names for name in ("both", "later", "rest", "none")}
    assert named["both"] == named["later"] == ("person", "car", "road", "sign")
    assert named["rest"] == ("person", "sign", "road"), "a name of both tasks stays"
    assert named["none"] == ("person",), "the first model's own names stay"


def test_an_edited_model_on_the_hub_keeps_its_tasks(folder, tasks, tmp_path, capsys, monkeypatch):
    cars, signs = (tasks / f"{name}.safetensors" for name in ("cars", "signs"))
    assert run(capsys, "add", folder, "--tasks", cars, "--output", tmp_path / "one")[0] == 0
    assert run(capsys, "add", tmp_path / "one", "--tasks", signs, "--output", tmp_path / "both")[0] == 0
    hub = {f"me/{name}": tmp_path / name for name in ("one", "both")}
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/base": folder, **hub})
    assert run(capsys, "add", "me/one", "--tasks", signs, "--output", tmp_path / "added")[0] == 0
    added, both = weights_of(tmp_path / "added"), weights_of(tmp_path / "both")
    assert all(torch.equal(added[name], both[name]) for name in both)
    assert read_record(tmp_path / "added").names == read_record(tmp_path / "both").names
    code, out, _ = run(capsys, "list", "me/both")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["cars", "signs"])
    model_info(ModelInfoOptions(model="me/both"))
    assert "edits        cars, signs" in capsys.readouterr().out
    assert run(capsys, "remove", "me/both", "--tasks", "signs", "--output", tmp_path / "rest")[0] == 0
    rest, one = weights_of(tmp_path / "rest"), weights_of(tmp_path / "one")
    assert all(torch.equal(rest[name], one[name]) for name in one)
    code, _, err = run(capsys, "list", "me/base")
    assert (code, err.count("\n"), "me/base has no edits" in err) == (2, 1, True)
    code, _, err = run(capsys, "list", "me/absent")
    assert (code, err.count("\n"), "could not be downloaded" in err) == (2, 1, True)


@pytest.mark.parametrize("name", ["LOCAL", "RUN", "me/one"])
def test_an_edited_model_is_no_base_of_another_edit(name, folder, tasks, tmp_path, capsys, monkeypatch):
    teacher = tmp_path / "mine" / "teachers" / "grounding_dino"
    assert run(capsys, "add", folder, "--tasks", tasks / "cars.safetensors", "--output", teacher)[0] == 0
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/one": teacher})
    model = {"LOCAL": teacher, "RUN": tmp_path / "mine"}.get(name, name)
    with pytest.raises(SystemExit) as caught:
        main(train_arguments(model, tmp_path / "runs", "--keep", "edit", "--max-steps", "1"))
    err = capsys.readouterr().err
    assert (caught.value.code, f"--keep edit: {model} is edited already" in err) == (2, True), err
    assert not (tmp_path / "runs").exists(), "nothing is written"


def test_a_task_of_before_names_were_stored_adds_none(folder, tasks, tmp_path, capsys):
    with safe_open(tasks / "cars.safetensors", framework="pt") as file:
        base = file.metadata()["base"]
    save_file(load_file(tasks / "cars.safetensors"), tmp_path / "old.safetensors", metadata={"base": base})
    assert run(capsys, "add", folder, "--tasks", tmp_path / "old.safetensors", "--output", tmp_path / "out")[0] == 0
    assert read_record(tmp_path / "out").names == ("person",)


def test_names_that_are_no_list(folder, tmp_path):
    first = first_weights(load_grounding_dino(folder))
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"base": digest(first), "names": "{}"})
    with pytest.raises(ModelError, match="not a list"):
        read_task(tmp_path / "x.safetensors", first)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("list", "FOLDER"), "has no edits"),
        (("add", "FOLDER", "--tasks", "absent.safetensors", "--output", "OUT"), "absent.safetensors does not exist"),
        (("add", "FOLDER", "--tasks", "TASK", "TASK", "--output", "OUT"), "both called 'cars'"),
        (("add", "FOLDER", "--tasks", "TASK", "--output", "FOLDER"), "exists"),
        (("add", "OTHER", "--tasks", "TASK", "--output", "OUT"), "a task of another model"),
        (("add", "FOLDER", "--tasks", "BROKEN", "--output", "OUT"), "cannot be read as a task"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, told, folder, tasks, tmp_path, capsys):
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nothing of it")
    other = load_grounding_dino(folder)
    perturb(other.model, seed=1)
    save_grounding_dino(other, tmp_path / "other")
    places = {
        "FOLDER": folder,
        "OTHER": tmp_path / "other",
        "OUT": tmp_path / "out",
        "TASK": tasks / "cars.safetensors",
        "BROKEN": tmp_path / "broken.safetensors",
    }
    code, _, err = run(capsys, *(places.get(word, word) for word in words))
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tmp_path / "out").exists()


def test_a_task_with_other_shapes(folder, tmp_path):
    first = first_weights(load_grounding_dino(folder))
    write_task(tmp_path / "x.safetensors", Task({"a": LayerTask(torch.eye(2), torch.eye(2))}), digest(first))
    with pytest.raises(ModelError, match="has no statistics of model"):
        read_task(tmp_path / "x.safetensors", first)
