"""What a model was trained on, and the warning when it is given pictures of another kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from deixis.models.model_record import Domain, ModelRecord
from deixis.options.checks import are_generated
from deixis.recipes.run.outputs import warn_once


@runtime_checkable
class HasRecord(Protocol):
    """A detector or a segmenter."""

    @property
    def record(self) -> ModelRecord: ...


Bundle = TypeVar("Bundle", bound=HasRecord)


def warn_of_shapes(record: ModelRecord, model: str, example: str, *sources: Any) -> None:
    """Warn once where a model that knows only generated shapes is given pictures from files.

    Args:
        record: of the model.
        model: its name, for the message.
        example: a released model of the same kind.
        sources: where the pictures come from, as options give them.
    """
    if record.domain == "generated" and not are_generated(*sources):
        warn_once(
            f"{model} has learned from generated shapes only: what it says of photographs means nothing. "
            f"Name a released model, as in {example}"
        )


def knowing(bundle: Bundle, model: str, example: str, *sources: Any) -> Bundle:
    """A model that is to be trained on this data, its record as it is afterwards; with a warning, if it is due."""
    warn_of_shapes(bundle.record, model, f"--model {example}", *sources)
    domain: Domain = bundle.record.domain if are_generated(*sources) else "photographs"
    return cast(Bundle, replace(cast(Any, bundle), record=replace(bundle.record, domain=domain)))
