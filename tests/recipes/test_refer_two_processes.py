"""The segmenter in two processes (gloo): loss and gradient of one process on the joined batch, and whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from refer_miniatures import sa1b
from safetensors.torch import load_file
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records
from tiny_runs import run_program as run

from deixis.cli import command
from deixis.recipes.run import devices

SCRIPT = Path(__file__).with_name("one_refer_step.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


@pytest.fixture(scope="module")
def steps(model, tmp_path_factory):
    """The first step of the same eight images, by processes and by batch size x batches."""
    folder = tmp_path_factory.mktemp("steps")
    for name in ("one", "two"):
        (folder / name).mkdir()
    run(SCRIPT, model, folder / "one", "8x1", "4x2", "8x1s", "8x1t", "4x2t")
    run(SCRIPT, model, folder / "two", "4x1", "2x2", "4x1s", "4x1t", "4x1f", "2x2f", "4x1ft", "4x1fc", processes=2)
    return {f"{path.parent.name} {path.stem}": torch.load(path, weights_only=True) for path in folder.glob("*/*.pt")}


WAYS = [
    *(("one 4x2", "one 8x1"), ("two 4x1", "one 8x1"), ("two 2x2", "one 8x1"), ("two 4x1s", "one 8x1s")),
    *(("one 4x2t", "one 8x1t"), ("two 4x1t", "one 8x1t")),
    *(("two 4x1f", "one 8x1"), ("two 2x2f", "one 8x1"), ("two 4x1ft", "one 8x1t"), ("two 4x1fc", "one 8x1")),
]
"""f: the model in shards, which the script asserts; c: activations computed twice.

4x1s: no `[SEG]` in any row of the second process, which has to reach the same parameters all the same; 4x1t: no
image there either."""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "joined"), WAYS)
def test_the_losses_are_those_of_the_joined_batch(steps, way, joined):
    one, other = steps[joined]["figures"], steps[way]["figures"]
    assert one.keys() == other.keys()
    for name in one.keys() - {"iou"}:  # a mean over batches
        assert other[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(("way", "joined"), WAYS)
def test_the_gradients_are_those_of_the_joined_batch(steps, way, joined):
    one, other = steps[joined]["gradients"], steps[way]["gradients"]
    assert one.keys() == other.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in one.values())
    for name, gradient in one.items():
        assert gradient is not None, name
        torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
def test_a_whole_run_in_two_processes_and_its_resumption(model, tmp_path):
    """It ends, evaluates every image once, and a run cut off in its second epoch ends with the same weights."""
    common = ("--batch-size", "1", "--epochs", "2", "--no-report", "--no-baseline")
    run("-m", "deixis", *refer_arguments(model, tmp_path, *common), processes=2)
    whole = tmp_path / "segmenter"
    assert [record["step"] for record in records(whole, "step")] == list(range(8))
    assert all(record["images"] == 3 for record in records(whole, "evaluation"))

    cut = (*common, "--experiment-name", "cut", "--save-interval", "1")
    script = Path(__file__).with_name("cut_refer_run.py")
    run(script, *refer_arguments(model, tmp_path, *cut), processes=2, code=1)
    assert not (tmp_path / "cut/teachers").exists()
    run("-m", "deixis", *refer_arguments(model, tmp_path, *cut, "--resume"), processes=2)
    for path in sorted((whole / "teachers/sa2va").rglob("*.safetensors")):
        mine = load_file(tmp_path / "cut" / path.relative_to(whole))
        for name, tensor in load_file(path).items():
            assert torch.equal(mine[name], tensor), name


class TestGpus:
    """`--gpus 2` looks at the inputs once before it starts two processes, which would each tell what is wrong."""

    @pytest.fixture
    def started(self, monkeypatch):
        started: list[tuple[int, list[str]]] = []

        def relaunch(processes, arguments):
            started.append((processes, list(arguments)))
            raise SystemExit(0)

        monkeypatch.setattr(command, "relaunch", relaunch)
        monkeypatch.setattr(devices, "require_gpus", lambda count: None)
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        return started

    def test_it_starts_the_same_command(self, model, tmp_path, deixis, started):
        arguments = refer_arguments(model, tmp_path, "--gpus", "2")
        assert deixis(arguments)[0] == 0
        assert started == [(2, [str(word) for word in arguments])]

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--data", "scenes:split=nowhere"), "no split 'nowhere'"),
            (("--resume",), "--resume"),
            (("--behaviour", "sa2va", "--weight-iou", "1"), "--weight-iou"),
        ],
    )
    def test_it_starts_nothing_on_bad_inputs(self, model, tmp_path, deixis, started, more, said):
        code, _, err = deixis(refer_arguments(model, tmp_path, "--gpus", "2", *more))
        assert (code, started) == (2, [])
        assert said in err


@pytest.mark.slow
def test_both_processes_describe_and_the_captions_are_those_of_one(model, tmp_path):
    """SA-1B's masks at the start of a run: each process its share, cut off and resumed, in the order of one process."""
    masks = sa1b(tmp_path / "sa1b", tuple(range(1, 12)))
    script = tmp_path / "describe.py"
    script.write_text(
        "import sys\n"
        "from deixis.inference.refer.cycle import Cycle\n"
        "from deixis.options.refer_cycle import ReferCycleOptions\n"
        "from deixis.recipes.refer.cycle import cycle_masks_together\n"
        "from deixis.training.processes import make_accelerator\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    accelerator, run = make_accelerator(cpu=True), Cycle.run\n"
        "    def counted(self, dataset, batch_size, indices):\n"
        "        with open(f'{sys.argv[3]}.{accelerator.process_index}', 'a') as file:\n"
        "            file.write(' '.join(map(str, indices)) + ' ')\n"
        "        return run(self, dataset, batch_size, indices)\n"
        "    Cycle.run = counted\n"
        "    model, masks, output = sys.argv[1:]\n"
        "    options = ReferCycleOptions(masks=masks, model=model, output=Path(output), threshold=0.0,\n"
        "                                max_new_tokens=3, max_tiles=1)\n"
        "    cycle_masks_together(options, accelerator)\n"
    )
    run(script, model, masks, tmp_path / "one")
    run(script, model, masks, tmp_path / "two", processes=2)
    assert (tmp_path / "two" / "cycle.jsonl").read_text() == (tmp_path / "one" / "cycle.jsonl").read_text()
    shares = [(tmp_path / f"two.{rank}").read_text().split() for rank in (0, 1)]
    assert sorted(map(int, shares[0] + shares[1])) == list(range(11))
    assert [len(share) for share in shares] == [6, 5]

    whole = (tmp_path / "two" / "cycle.jsonl").read_text()
    (tmp_path / "two" / "cycle.jsonl").write_text("".join(whole.splitlines(keepends=True)[:4]))  # three images are done
    run(script, model, masks, tmp_path / "two", processes=2)
    assert (tmp_path / "two" / "cycle.jsonl").read_text() == whole
    again = [(tmp_path / f"two.{rank}").read_text().split() for rank in (0, 1)]
    assert sorted(map(int, [*again[0][6:], *again[1][5:]])) == list(range(3, 11))
