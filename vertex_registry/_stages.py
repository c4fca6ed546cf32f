"""A stage is a label.

Vertex has no stages. A version is in a stage when it carries the label ``stage`` with the stage's name in lower case,
for label values have no capitals. Every version carries one, also in no stage: Vertex merges the labels of a model
into those of its versions when it answers, so that a version without a label of its own would show its model's.

Stages are decided here, from the labels that came back, and never by a filter of Vertex's: whether a label filter sees
the merged labels or only a version's own is not documented, and either reading makes some filter miss a version.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGE_LABEL: Final = "stage"


class Stage(enum.StrEnum):
    """Where a version stands: in no stage, in Staging, in Production or Archived.

    A stage is made from its name in any case:

    >>> Stage("production")
    <Stage.PRODUCTION: 'Production'>
    """

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"

    @classmethod
    def _missing_(cls, value: object) -> Stage | None:
        return _BY_LABEL.get(value.lower()) if isinstance(value, str) else None

    @property
    def label(self) -> str:
        """The value of the label ``stage`` on the versions in this stage."""
        return self.value.lower()


_BY_LABEL: Final = {stage.label: stage for stage in Stage}


def stage_of(labels: Mapping[str, str]) -> Stage:
    """The stage that the labels tell; a value that is nobody's stage, or no label, is ``Stage.NONE``."""
    return _BY_LABEL.get(labels.get(STAGE_LABEL, ""), Stage.NONE)


def check_stage(stage: Stage | str) -> Stage:
    """The stage of that name, in any case.

    Raises:
        InvalidArgumentError: There is no such stage.
    """
    try:
        return Stage(stage)
    except ValueError:
        names = ", ".join(Stage)
        raise InvalidArgumentError(f"There is no stage {stage!r}. The stages are {names}.") from None
