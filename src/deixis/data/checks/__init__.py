"""Checking a data set: every image decoded once, every object checked, and a cleaned copy made ready."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from deixis.data.checks.classes import count_objects, examine_alike, examine_classes, merge_classes, without_classes
from deixis.data.checks.copies import examine_copies
from deixis.data.checks.images import decode_once, examine_range, in_own_frame
from deixis.data.checks.limits import ModelLimits, examine_limits
from deixis.data.checks.objects import examine_frame, examine_objects
from deixis.data.findings import Findings
from deixis.data.pixels.image_files import is_image_file
from deixis.data.pixels.image_hash import ImageHash
from deixis.data.pixels.images import wide_grey_range
from deixis.data.pixels.parallel import in_order
from deixis.data.sets.embedded import EmbeddedDataset, is_embedded, record_of
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.records import Dataset, Sample, SampleList, Vocabulary
from deixis.text import listed

_NAMED = 4
MAX_CHECKED = 20_000  # images of a set that training checks; more would take minutes
OPENED = 16  # of those, images that are opened to find out whether they have 16 bits


@dataclass
class Checked:
    """A data set after its check.

    Attributes:
        dataset: as it was read.
        file: its annotations, as findings name them.
        samples: the cleaned samples by position in `dataset`; those left out are absent.
        hashes: of the same.
        counts: objects by class name, crowds not counted, after cleaning.
        vocabulary: of the cleaned samples.
        generated: its pictures are drawn and no files.
    """

    dataset: Dataset
    file: str
    samples: dict[int, Sample]
    hashes: dict[int, ImageHash]
    counts: Counter[str]
    vocabulary: Vocabulary
    generated: bool = False

    def drop_class(self, name: str) -> None:
        """Take a class without objects out of the vocabulary."""
        self._revise(without_classes(self.vocabulary, [name]), {})

    def merge(self, merged: dict[str, str]) -> None:
        """Merge classes into others."""
        if merged:
            self._revise(without_classes(self.vocabulary, merged), merged)
            self.counts = count_objects(self.samples.values())

    def _revise(self, vocabulary: Vocabulary, merged: dict[str, str]) -> None:
        self.vocabulary = vocabulary
        self.samples = {i: merge_classes(sample, vocabulary, merged) for i, sample in self.samples.items()}

    @property
    def shares_names(self) -> bool:
        """Whether all samples have the data set's own vocabulary (grounding data has one per image)."""
        return all(sample.vocabulary == self.vocabulary for sample in self.samples.values())

    def cleaned(self) -> Dataset:
        """The cleaned samples as a data set, to be written.

        Raises:
            DataError: nothing is left, or the pictures are generated.
        """
        dataset, kept, samples = self.dataset, tuple(self.samples), tuple(self.samples.values())
        # A part's positions count its own images, and what is written below needs those of the whole.
        while isinstance(dataset, Subset):
            dataset, kept = dataset.dataset, tuple(dataset.indices[index] for index in kept)
        if not samples:
            raise DataError(f"{self.file}: no image is left after cleaning")
        if self.generated:
            raise DataError(f"{self.file}: generated pictures have nothing to clean")
        name = str(getattr(self.dataset, "name", "data"))
        if isinstance(dataset, EmbeddedDataset):
            cleaned = dict(zip(kept, samples, strict=True))
            # Records of all images: `read_bytes` finds a picture by its position among them.
            records = tuple(cleaned.get(index, record) for index, record in enumerate(dataset.records))
            return Subset(replace(dataset, records=records, vocabulary=self.vocabulary), kept, name)
        return SampleList(samples, self.vocabulary, name)


def check_dataset(
    dataset: Dataset,
    file: str,
    findings: Findings,
    workers: int,
    advance: Callable[[], object] = lambda: None,
    limits: ModelLimits | None = None,
) -> Checked:
    """Decode every image once, check every object, find copies, and report what is wrong.

    Args:
        dataset: read with these findings, so that its boxes are as in the file.
        file: its annotations, as the findings name them.
        workers: threads that decode images.
        advance: called after each image.
        limits: of the model that will be trained or measured.
    """
    samples: dict[int, Sample] = {}
    hashes: dict[int, ImageHash] = {}
    generated = False
    for index, decoded in enumerate(in_order(lambda i: decode_once(dataset, i), range(len(dataset)), workers)):
        findings.listed.add(Path(str(decoded.sample.image)).stem if isinstance(decoded.sample.image, Path) else "")
        sample = in_own_frame(decoded, findings)
        if sample is not None and decoded.hashed is not None:
            examine_range(sample, decoded.wide_grey, findings)
            sample = examine_objects(sample, findings)
            if limits is not None:
                examine_limits(sample, limits, findings)
            generated = not isinstance(sample.image, Path)
            # Pixels of generated scenes are let go; a file keeps its path.
            samples[index] = sample.evolve(image=Path(sample.source)) if generated else sample
            hashes[index] = decoded.hashed
        advance()
    kept = examine_copies(list(samples.values()), list(hashes.values()), findings)
    positions = list(samples)
    samples = {positions[i]: sample for i, sample in kept.items()}
    hashes = {i: hashes[i] for i in samples}
    counts = count_objects(samples.values())
    checked = Checked(dataset, file, samples, hashes, counts, dataset.vocabulary, generated)
    if not generated and not isinstance(dataset, EmbeddedDataset | Subset):  # a part leaves images out on purpose
        _unlisted(samples, findings)
    _examine_names(checked, findings)
    return checked


def check_annotations(
    dataset: Dataset, file: str, findings: Findings, limits: ModelLimits | None = None, max_images: int = MAX_CHECKED
) -> Checked:
    """What `check_dataset` finds, but for what needs pixels: for training and evaluation, which read those anyway.

    Of 16-bit images a few are opened. Hashes are empty; of very many images, some are checked.
    """
    samples: dict[int, Sample] = {}
    first_of: dict[Path, Sample] = {}
    step = max(-(-len(dataset) // max_images), 1)  # rounded up
    indices = range(0, len(dataset), step)
    opened = {indices[i] for i in range(0, len(indices), max(-(-len(indices) // OPENED), 1))}
    for index in indices:
        sample = record_of(dataset, index)
        if not isinstance(sample.image, Path):
            return Checked(dataset, file, {}, {}, Counter(), dataset.vocabulary, generated=True)
        findings.listed.add(sample.image.stem)
        if index in opened:
            examine_range(sample, wide_grey_range(sample.image), findings)
        first = first_of.setdefault(sample.image, sample)
        if first is not sample and not is_embedded(dataset):
            text = f"is listed as {first.source} too"
            findings.add("image_listed_twice", sample.image, sample.source, text)
        samples[index] = examine_objects(sample, findings)
        if limits is not None:
            examine_limits(samples[index], limits, findings)
    checked = Checked(dataset, file, samples, {}, count_objects(samples.values()), dataset.vocabulary)
    # Of a large set only every step-th image was looked at, so that the others would seem not to be listed.
    if not isinstance(dataset, EmbeddedDataset | Subset) and step == 1:
        _unlisted(samples, findings)
    _examine_names(checked, findings)
    return checked


def _examine_names(checked: Checked, findings: Findings) -> None:
    """Findings on classes; names that are one are merged in what was checked."""
    dataset, file = checked.dataset, checked.file
    if not checked.counts:
        findings.add("no_objects", file, "", "no image has an object")
    examine_frame(checked.samples.values(), file, findings)
    if checked.counts and checked.shares_names:
        examine_classes(dataset.vocabulary.names, checked.counts, file, findings)
        checked.merge(examine_alike(dataset.vocabulary, file, findings))


def _unlisted(samples: dict[int, Sample], findings: Findings) -> None:
    folders = sorted({sample.image.parent for sample in samples.values() if isinstance(sample.image, Path)})
    for folder in folders:
        files = sorted(file.name for file in folder.iterdir() if is_image_file(file))
        unlisted = [name for name in files if Path(name).stem not in findings.listed]
        if unlisted:
            findings.add("image_not_listed", folder, "", listed(unlisted, _NAMED))
