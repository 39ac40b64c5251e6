"""Loading: a function of (seed, epoch, sample index), whatever loads, however many processes share it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from deixis.batch_records import Batch, Prompt
from deixis.data.batching.epochs import epoch_batches, sample_generator, steps_per_epoch
from deixis.data.batching.loading import SHARED_BYTES, InTransfer, load_batches
from deixis.data.detect.augment import PRESETS
from deixis.data.detect.collate import SampleDataset, collate, collate_pairs
from deixis.data.detect.transforms import eval_transform, train_transform
from deixis.data.pixels.images import load
from deixis.errors import DataError, OptionError
from deixis.records import Instances, Rle, Sample, SampleList, Vocabulary
from deixis.training.processes import grouped

NAMES = ("cat", "dog")


@dataclass(frozen=True)
class DrawnPrompts:
    """Prompts whose order of names is drawn, as a training recipe may do; one token a name."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Prompt:
        names = tuple(sample.vocabulary.names[i] for i in generator.permutation(len(NAMES)))
        ids = tuple(len(name) + ord(name[0]) for name in names)
        rows = np.eye(2, 5, k=1, dtype=np.float32)
        return Prompt(". ".join(names) + ".", names, ((0, 3), (5, 8)), (101, *ids, 1012, 102), rows)


@pytest.fixture
def pictures(tmp_path: Path) -> SampleList:
    """Eleven files of different sizes, each with one to three boxes."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(11):
        size_hw = (int(generator.integers(20, 60)), int(generator.integers(20, 60)))
        path = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 255, (*size_hw, 3), dtype=np.uint8)).save(path)
        boxes = [[1.0 * i, 2, 10 + i, 19] for i in range(number % 3 + 1)]
        instances = Instances.build(boxes, [i % 2 for i in range(len(boxes))])
        samples.append(Sample(path, size_hw, instances, Vocabulary(NAMES), number, path.name))
    return SampleList(tuple(samples), Vocabulary(NAMES))


def training_set(samples: SampleList, seed: int = 5) -> SampleDataset:
    return SampleDataset(samples, train_transform([24, 32, 48], 64), DrawnPrompts(), seed)


def load_epoch(samples: SampleList, workers: int, epoch: int = 0, seed: int = 5, skip: int = 0) -> list[Batch]:
    batches = epoch_batches(len(samples), 4, epoch, seed)[skip:]
    return list(load_batches(training_set(samples, seed), batches, collate_pairs, workers))


def assert_same(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("pixels_u8", "pixel_mask", "input_ids", "attention_mask"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert getattr(one, name).dtype == getattr(other, name).dtype
        for mine, theirs in zip(one.targets, other.targets, strict=True):
            for name in ("boxes_cxcywh_norm", "class_ids", "positive_map"):
                assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
            assert mine.seed == theirs.seed
            assert (mine.size_hw, mine.original_size_hw, mine.image_id, mine.source) == (
                theirs.size_hw,
                theirs.original_size_hw,
                theirs.image_id,
                theirs.source,
            )


def test_the_number_of_workers_changes_nothing(pictures: SampleList) -> None:
    here = load_epoch(pictures, workers=0)
    assert [len(batch) for batch in here] == [4, 4, 3]
    for workers in (1, 2):
        assert_same(here, load_epoch(pictures, workers))


def test_every_epoch_and_seed_is_its_own(pictures: SampleList) -> None:
    first = load_epoch(pictures, 0)
    assert_same(first, load_epoch(pictures, 0))
    for other in (load_epoch(pictures, 0, epoch=1), load_epoch(pictures, 0, seed=6)):
        with pytest.raises(AssertionError):
            assert_same(first, other)


def test_each_sample_has_a_seed_of_its_own_in_each_epoch(pictures: SampleList) -> None:
    dataset = training_set(pictures)
    seeds = [dataset[key][0].seed for key in ((0, 0), (0, 1), (1, 0))]
    assert len(set(seeds)) == 3
    assert dataset[0, 1][0].seed == seeds[1]


def test_an_epoch_resumes_in_its_middle(pictures: SampleList) -> None:
    assert_same(load_epoch(pictures, 0)[2:], load_epoch(pictures, 2, skip=2))


def test_global_random_state_is_neither_read_nor_moved(pictures: SampleList) -> None:
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = load_epoch(pictures, 0)
    np.random.seed(1)  # noqa: NPY002
    assert_same(first, load_epoch(pictures, 0))
    sample, _ = training_set(pictures)[0, 3]
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(training_set(pictures)[0, 3][0].image, sample.image)


def test_samples_draw_from_generators_of_their_own() -> None:
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert len({sample_generator(*key).integers(2**60) for key in keys}) == len(keys)
    assert sample_generator(3, 2, 1).random() == sample_generator(3, 2, 1).random()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_one_clear_line(pictures: SampleList, workers: int) -> None:
    path = pictures[4].image
    assert isinstance(path, Path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        load_epoch(pictures, workers)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_collation_is_one_clear_line(pictures: SampleList, workers: int) -> None:
    dataset = SampleDataset(pictures, eval_transform(32, 64), CatsOnly(), 0)
    with pytest.raises(DataError, match=r"classes \['dog'\] are not among the names") as caught:
        list(load_batches(dataset, epoch_batches(11, 4, 0, 0), collate_pairs, workers))
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class CatsOnly:
    def __call__(self, sample: Sample, generator: np.random.Generator) -> Prompt:
        return Prompt("cat.", ("cat",), ((0, 3),), (101, 102, 1012, 102), np.eye(1, 4, k=1, dtype=np.float32))


def test_a_bug_keeps_its_traceback(pictures: SampleList) -> None:
    def broken(sample: Sample, generator: np.random.Generator) -> Sample:
        raise ZeroDivisionError("a bug")

    dataset = SampleDataset(pictures, broken, DrawnPrompts(), 0)
    with pytest.raises(ZeroDivisionError):
        list(load_batches(dataset, epoch_batches(11, 4, 0, 0), collate_pairs, workers=1))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_killed_while_it_hands_over_a_batch_is_named(pictures, monkeypatch, error) -> None:
    def handed_over(*_: object) -> None:
        raise error

    monkeypatch.setattr(DataLoader, "__iter__", lambda _: map(handed_over, [0]))
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(load_batches(SampleDataset(pictures, eval_transform(32, 64), DrawnPrompts(), 0), [[(0, 0)]], list))


def test_negative_seeds_are_refused(pictures: SampleList) -> None:
    with pytest.raises(OptionError, match="seed must be 0 or more"):
        training_set(pictures, seed=-1)


def test_masks_are_left_out() -> None:
    masks: list[Rle] = [{"size": [8, 8], "counts": b"0T2"}]
    sample = Sample(
        np.zeros((8, 8, 3), np.uint8), (8, 8), Instances.build([[0, 0, 4, 4]], [0], masks_rle=masks), Vocabulary(NAMES)
    )
    samples = SampleList((sample,), Vocabulary(NAMES))
    for preset in (None, *PRESETS.values()):
        dataset = SampleDataset(samples, eval_transform(8, 8), DrawnPrompts(), 0, mixed=preset)
        assert dataset[0, 0][0].instances.masks_rle is None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
@pytest.mark.skipif(sys.platform != "linux", reason="torch shares tensors by file descriptor on Linux")
def test_a_batch_from_a_worker_costs_one_open_file(pictures: SampleList) -> None:
    many = SampleList(pictures.samples * 8, pictures.vocabulary)
    batches = epoch_batches(len(many), 8, 0, 0)
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = list(load_batches(training_set(many), batches, collate_pairs, workers=1))
    after = len(list(Path("/proc/self/fd").iterdir()))
    assert len(held) == 11
    assert after - before <= len(held) + 8  # tensors by tensor it would be 11 batches x (4 + 3 x 8)


def test_large_tensors_leave_a_worker_through_shared_memory_and_small_ones_by_value() -> None:
    large, small = torch.zeros(SHARED_BYTES, dtype=torch.uint8), torch.arange(3)
    received, (content, shared) = InTransfer({"large": large, "small": (small, "text")}).__reduce__()
    assert len(shared) == 1
    assert shared[0] is large
    assert len(content) < 1000
    batch = received(content, shared)
    assert batch["large"] is large
    assert torch.equal(batch["small"][0], small)
    batch["small"][0].add_(1)  # it has memory of its own that may be written
    assert small.tolist() == [0, 1, 2]


def test_a_worker_puts_pixels_together_in_shared_memory(pictures: SampleList) -> None:
    samples = [load(sample) for sample in pictures.samples[:3]]
    prompts = [DrawnPrompts()(sample, np.random.default_rng(0)) for sample in samples]
    own, shared = collate(samples, prompts), collate(samples, prompts, shared=True)
    assert shared.pixels_u8.is_shared()
    assert not own.pixels_u8.is_shared()
    assert_same([own], [shared])


def indices(batches: list[list[tuple[int, int]]]) -> list[list[int]]:
    return [[index for _, index in batch] for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_an_epoch_shows_every_sample_once_in_a_new_order() -> None:
    first, second = (epoch_batches(10, 4, epoch, seed=0) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(flat(indices(first))) == list(range(10))
    assert sorted(flat(indices(second))) == list(range(10))
    assert indices(first) != indices(second)
    assert {epoch for batch in second for epoch, _ in batch} == {1}


def test_without_shuffling_the_order_is_the_data_sets() -> None:
    assert indices(epoch_batches(5, 2, 3, 0, shuffle=False)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 11, 17])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_steps_of_one(count: int, processes: int) -> None:
    alone = indices(epoch_batches(count, 2 * processes, 1, seed=7))
    shares = [
        indices(epoch_batches(count, 2, 1, 7, num_processes=processes, process_index=i)) for i in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1  # a process with fewer steps would leave the others waiting
    assert all(batch for share in shares for batch in share)
    for step, together in enumerate(alone):
        shared = flat([share[step] for share in shares])
        assert shared[: len(together)] == together
        assert len(shared) == max(len(together), processes)  # repeated only to give each process one


@pytest.mark.parametrize("count", [1, 2, 5, 11, 23, 48, 50])
@pytest.mark.parametrize("shapes", [False, True])
def test_a_step_is_the_same_samples_however_it_is_shared_out(count: int, shapes: bool) -> None:
    """Four samples a step: in one batch, accumulated, and in two processes; batched by shape or not."""
    ratios = np.random.default_rng(0).uniform(0.5, 2, count) if shapes else None

    def steps(batch_size: int, accumulation: int, processes: int) -> list[list[int]]:
        of_processes = [
            indices(
                epoch_batches(
                    count, batch_size, 1, 7, True, processes, process, aspect_ratios=ratios, accumulation=accumulation
                )
            )
            for process in range(processes)
        ]
        assert len({len(batches) for batches in of_processes}) == 1
        batches = [flat(shares) for shares in zip(*of_processes, strict=True)]
        assert all(share for shares in of_processes for share in shares)
        return [flat(group) for group in grouped(batches, accumulation)]

    together = steps(4, 1, 1)
    assert sorted(flat(together)) == list(range(count))
    for batch_size, accumulation in ((2, 2), (1, 4)):
        assert steps(batch_size, accumulation, 1) == together
    for batch_size, accumulation in ((2, 1), (1, 2)):
        shared = steps(batch_size, accumulation, 2)
        assert len(shared) == len(together)
        for mine, theirs in zip(shared, together, strict=True):
            assert mine[: len(theirs)] == theirs
            assert len(mine) - len(theirs) <= 1  # repeated to give each process one


def test_an_accumulated_epoch_resumes_in_its_middle() -> None:
    whole = epoch_batches(11, 1, 0, 0, accumulation=3)
    assert [len(batch) for batch in whole] == [1] * 11
    assert indices(whole[2 * 3 :]) == indices(whole)[6:]


def test_drop_last() -> None:
    assert [len(batch) for batch in epoch_batches(10, 4, 0, 0, drop_last=True)] == [4, 4]
    assert [len(batch) for batch in epoch_batches(8, 4, 0, 0, drop_last=True)] == [4, 4]
    assert len(epoch_batches(3, 4, 0, 0, drop_last=True)) == 0


@pytest.mark.parametrize("drop_last", [False, True])
def test_steps_per_epoch_counts_the_batches(drop_last: bool) -> None:
    for count in range(1, 30):
        for processes in (1, 2, 3):
            batches = epoch_batches(count, 4, 0, 0, num_processes=processes, drop_last=drop_last)
            assert steps_per_epoch(count, 4, processes, drop_last) == len(batches)


def test_batches_by_aspect_ratio() -> None:
    ratios = np.random.default_rng(0).uniform(0.5, 2, 103)
    plain, alike = (indices(epoch_batches(103, 4, 0, 0, aspect_ratios=r)) for r in (None, ratios.tolist()))
    assert sorted(flat(alike)) == list(range(103))
    assert [len(batch) for batch in alike] == [4] * 25 + [3]

    def spread(batches: list[list[int]]) -> float:
        return float(np.mean([np.ptp(ratios[batch]) for batch in batches]))

    assert spread(alike[:-1]) < spread(plain) / 4
    means = [float(ratios[batch].mean()) for batch in alike[:16]]
    assert means != sorted(means)  # the order of batches is still random
    assert alike != indices(epoch_batches(103, 4, 1, 0, aspect_ratios=ratios.tolist()))


def test_shapes_are_alike_in_each_batch_of_an_accumulated_step() -> None:
    ratios = np.random.default_rng(0).uniform(0.5, 2, 96)
    batches = indices(epoch_batches(96, 2, 0, 0, aspect_ratios=ratios, accumulation=4))
    plain = indices(epoch_batches(96, 2, 0, 0, accumulation=4))
    spreads = [float(np.mean([np.ptp(ratios[batch]) for batch in one])) for one in (batches, plain)]
    assert spreads[0] < spreads[1] / 4


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0)])
def test_impossible_batches(arguments: tuple[int, int]) -> None:
    with pytest.raises(OptionError):
        epoch_batches(*arguments, epoch=0, seed=0)
