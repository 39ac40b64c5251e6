"""Splitting a data set so that no image, nor a near copy of it, is on both sides.

A validation image whose twin was trained on measures memory, not detection.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from deixis.data.pixels.image_hash import DECODE_SHORT_PX, ImageHash, groups_of, hash_image
from deixis.data.pixels.images import load_image
from deixis.data.pixels.parallel import in_order
from deixis.data.sets.embedded import record_of, records
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.records import Dataset
from deixis.refer_records import ReferDataset

THREADS = 4


def hold_out(
    groups: Sequence[Sequence[tuple[int, int]]],
    names: Sequence[str],
    sizes: Sequence[int],
    shares: Sequence[float],
    seed: int,
) -> list[tuple[tuple[int, ...], ...]]:
    """For each of several data sets, the positions that are left for training, then those of each part held out.

    Whole groups of copies are drawn, in an order fixed by `seed`, until a part holds its share of each data set as
    nearly as the groups allow; at least one group, and never the last one that a data set has for training.

    Args:
        groups: (data set, position) of images that must stay together, singles included.
        names, sizes: of the data sets.
        shares: of each part held out, each above 0, together under 1.

    Raises:
        DataError: a data set with too few groups of copies to have one in every part.
    """
    counts = np.zeros((len(groups), len(sizes)), np.int64)
    for place, group in enumerate(groups):
        for number, _ in group:
            counts[place, number] += 1
    part_of = np.zeros(len(groups), np.int64)  # 0 stays for training
    left = counts.sum(0)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(groups))
    for part, share in enumerate(shares, start=1):
        for number, size in enumerate(sizes):
            # At least one image, however small the share.
            wanted, held = max(1, round(share * size)), int(counts[part_of == part, number].sum())
            free = [group for group in order if part_of[group] == 0 and counts[group, number]]
            # Groups larger than the whole share come last, the smallest of them first.
            for group in sorted(free, key=lambda g: counts[g, number] if counts[g, number] > wanted else 0):
                mine = counts[group]
                if held and held + mine[number] > wanted:
                    continue
                if (left[mine > 0] > mine[mine > 0]).all():  # each data set of the group keeps another one for training
                    part_of[group], held, left = part, held + int(mine[number]), left - mine
            if not held:
                raise DataError(
                    f"{names[number]}: {size} images in {int((counts[:, number] > 0).sum())} groups of duplicates "
                    f"cannot be split into {len(shares) + 1} parts, to be both trained on and measured; add images, or "
                    "give --val-data"
                )
    parts = []
    for number in range(len(sizes)):
        chosen: list[list[int]] = [[] for _ in range(len(shares) + 1)]
        for place, group in enumerate(groups):
            chosen[part_of[place]] += [index for owner, index in group if owner == number]
        parts.append(tuple(tuple(sorted(part)) for part in chosen))
    return parts


def split_stratified(
    dataset: Dataset, fractions: Sequence[float], seed: int = 0, groups: Sequence[Sequence[int]] | None = None
) -> list[tuple[int, ...]]:
    """Positions of each part: copies of an image in one part, each class shared out by the fractions.

    Iterative stratification (Sechidis et al., ECML 2011) over groups of copies: the class with the fewest groups left
    goes first, each of its groups to the part that still wants most images of that class.

    Args:
        fractions: the share of each part, above 0; they are divided by their sum.
        seed: decides among equals.
        groups: positions that must stay together; `duplicate_groups(dataset)` if not given.

    Raises:
        DataError: a fraction that is not above 0, an image that cannot be read, or fewer groups than parts.
    """
    if not fractions or not all(0 < fraction < float("inf") for fraction in fractions):
        raise DataError(f"the shares of the parts must be above 0, got {list(fractions)}")
    groups = duplicate_groups(dataset) if groups is None else groups
    if len(groups) < len(fractions):
        raise DataError(
            f"{len(dataset)} images in {len(groups)} groups of duplicates cannot be split into {len(fractions)} parts; "
            "add images"
        )
    shares = np.array(fractions, np.float64) / sum(fractions)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(groups))
    shuffled = [groups[i] for i in order]
    part_of = _shared_out(_class_counts(dataset, shuffled), [len(group) for group in shuffled], shares)
    _fill_empty(part_of, [len(group) for group in shuffled], len(shares))
    parts: list[list[int]] = [[] for _ in shares]
    for group, part in zip(shuffled, part_of, strict=True):
        parts[part] += group
    return [tuple(sorted(part)) for part in parts]


def _class_counts(dataset: Dataset, groups: Sequence[Sequence[int]]) -> list[Counter[str]]:
    """For each group, how many of its images show each class."""
    counts = []
    for group in groups:
        count: Counter[str] = Counter()
        for index in group:
            sample = record_of(dataset, index)
            count.update({sample.vocabulary.names[c] for c in sample.present_class_ids})
        counts.append(count)
    return counts


def _shared_out(counts: Sequence[Counter[str]], sizes: Sequence[int], shares: Float[np.ndarray, " parts"]) -> list[int]:
    """The part of each group."""
    members: dict[str, set[int]] = defaultdict(set)
    for group, count in enumerate(counts):
        for name in count:
            members[name].add(group)
    wanted = {name: shares * sum(counts[group][name] for group in found) for name, found in members.items()}
    wanted_images = shares * sum(sizes)
    part_of = [-1] * len(sizes)

    def assign(group: int, wish: Float[np.ndarray, " parts"]) -> None:
        # The part that lacks most images of this class; of equal ones the one that lacks most images at all.
        part = max(range(len(shares)), key=lambda p: (wish[p], wanted_images[p]))
        part_of[group] = part
        # Negative once the part has more than its share.
        wanted_images[part] -= sizes[group]
        for name, count in counts[group].items():
            wanted[name][part] -= count
            members[name].discard(group)  # assigned once, for its rarest class

    while any(members.values()):
        rarest = min((name for name in members if members[name]), key=lambda name: (len(members[name]), name))
        for group in sorted(members[rarest], key=lambda g: (-counts[g][rarest], g)):
            assign(group, wanted[rarest])
    for group, part in enumerate(part_of):
        if part < 0:  # shows no class
            assign(group, wanted_images)
    return part_of


def _fill_empty(part_of: list[int], sizes: Sequence[int], parts: int) -> None:
    """Give each part without an image the smallest group of the part with the most groups."""
    for part in range(parts):
        if part not in part_of:
            largest, _ = Counter(part_of).most_common(1)[0]
            smallest = min((g for g, p in enumerate(part_of) if p == largest), key=lambda g: sizes[g])
            part_of[smallest] = part


def duplicate_groups(
    dataset: Dataset, workers: int = THREADS, advance: Callable[[], object] = lambda: None
) -> list[list[int]]:
    """Positions of images that are the same or nearly so, one list per group, singles included, in order.

    See `deixis.data.pixels.image_hash.duplicate_pairs` for what is nearly the same; `advance` is called after each one.

    Raises:
        DataError: an image that cannot be read.
    """
    return groups_of(image_hashes(dataset, workers, advance))


def image_hashes(
    dataset: Dataset | ReferDataset, workers: int = THREADS, advance: Callable[[], object] = lambda: None
) -> list[ImageHash]:
    """Hashes of the images, to be compared with those of other data sets too.

    Raises:
        DataError: an image that cannot be read.
    """
    hashes = []
    for hashed in in_order(lambda index: _hashed(dataset[index].image), range(len(dataset)), workers):
        hashes.append(hashed)
        advance()
    return hashes


def _hashed(image: Path | UInt8[np.ndarray, "h w 3"]) -> ImageHash:
    if isinstance(image, np.ndarray):
        return hash_image(image, None)
    return hash_image(load_image(image, min_short_px=DECODE_SHORT_PX), image.read_bytes())


def sampled(dataset: Dataset, count: int, seed: int = 0) -> Subset:
    """`count` images, in the order of the data set; all of them where it has no more.

    Images without objects get the share that they have. Of the others, the class that the images drawn so far show
    least has the next one drawn, in a random order that `seed` fixes: every class is in as many as can be.
    """
    name = str(getattr(dataset, "name", "data"))
    if count >= len(dataset):
        return Subset(dataset, tuple(range(len(dataset))), name)
    shown = [sorted({sample.vocabulary.names[c] for c in sample.present_class_ids}) for sample in records(dataset)]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(shown)).tolist()
    empty = [index for index in order if not shown[index]]
    # At least one place is left for images with objects, where there are any.
    of_empty = min(round(count * len(empty) / len(shown)), count - 1 if len(empty) < len(shown) else count)
    chosen = set(empty[:of_empty])
    left: dict[str, list[int]] = defaultdict(list)
    for index in reversed(order):  # `pop` takes them in the order
        for label in shown[index]:
            left[label].append(index)
    drawn = dict.fromkeys(left, 0)
    # of classes shown equally often the rarest goes first
    queue = [(0, len(indices), label) for label, indices in left.items()]
    heapq.heapify(queue)
    while queue and len(chosen) < count:
        seen, rarity, label = heapq.heappop(queue)
        if seen != drawn[label]:  # an image drawn for another class showed this one too
            heapq.heappush(queue, (drawn[label], rarity, label))
            continue
        while left[label] and left[label][-1] in chosen:
            left[label].pop()
        if not left[label]:
            continue
        index = left[label].pop()
        chosen.add(index)
        for other in shown[index]:
            drawn[other] += 1
        heapq.heappush(queue, (drawn[label], rarity, label))
    # Where classes ran out before the count, the rest is filled with empty images.
    chosen.update(empty[of_empty : of_empty + count - len(chosen)])
    return Subset(dataset, tuple(sorted(chosen)), name)
