"""The three data sets of a run: one trains, one chooses the best epoch, one is reported on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

D = TypeVar("D")

SPLIT_SEED = 0  # fixed, so that every run of a data set, whatever its seed, holds out the same images
MIN_IMAGES_FOR_TEST = 100  # from here on a test set is held out too; of fewer images each is worth more in training


@dataclass(frozen=True)
class RunData(Generic[D]):
    """What a run reads.

    Attributes:
        validation: measured after each epoch; the best epoch is chosen on it.
        test: measured before training and at the end, never used to choose. None where there is no third set: figures
            are then those of the validation data, and optimistic.
        note: how the parts came about, for the plan.
        chat: conversations that show what a language model forgets; never trained on. None where there are none.
        used: the classes that are used to their new names; None for all as they are.
        left_out: what is not used of the training data, one line each.
        reviewed: how much of it people corrected in a review, one line each.
    """

    training: D
    validation: D
    test: D | None = None
    note: str = ""
    chat: D | None = None
    used: dict[str, str] | None = None
    left_out: tuple[str, ...] = ()
    reviewed: tuple[str, ...] = ()

    @property
    def reported(self) -> D:
        """The data on which figures are reported."""
        return self.validation if self.test is None else self.test


def held_out_shares(images: int, share: float, share_of_each: float, has_test: bool) -> tuple[float, ...]:
    """The shares of the training data to hold out where no validation data is given: (validation,) or with test.

    Args:
        images: of the training data.
        share: for validation alone.
        share_of_each: for validation and test each, where there are enough images for both.
        has_test: test data is given.
    """
    return (share_of_each,) * 2 if images >= MIN_IMAGES_FOR_TEST and not has_test else (share,)


def note_on_parts(shares: tuple[float, ...], images: int, test_given: bool) -> str:
    """A line of the plan: what was held out, and what the figures will be measured on."""
    held = "" if not shares else f"held out of the training data, copies on one side: {shares[0]:.0%} for validation"
    if len(shares) == 2:
        return f"{held}, {shares[1]:.0%} for test; the epoch is chosen on validation, figures are reported on test"
    if test_given:
        return f"{held + '; ' if held else ''}the epoch is chosen on validation, figures are reported on test"
    why = f" ({images} images; a test set is held out from {MIN_IMAGES_FOR_TEST} on)" if shares else ""
    return (
        f"{held}{why + '; ' if held else ''}no test data: the epoch is chosen on the validation data that figures are "
        "reported on, so they are optimistic; --test-data gives unbiased figures"
    )
