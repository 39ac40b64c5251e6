"""Some images of a data set, drawn so that rare classes are not lost."""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np

from deixis.data.sets.embedded import records
from deixis.data.sets.subset import Subset
from deixis.records import Dataset


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
    chosen.update(empty[of_empty : of_empty + count - len(chosen)])
    return Subset(dataset, tuple(sorted(chosen)), name)
