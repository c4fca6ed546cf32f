"""A stage is a label.

Vertex has no stages. A version is in a stage when it carries the label ``stage`` with the stage's name in lower case,
for label values have no capitals. Every version carries one, also in no stage: Vertex merges the labels of a model
into those of its versions when it answers, so that a version without a label of its own would show its model's.

A change of stage is stamped with its moment and its author, in two further labels. The stamps put the changes of one
model in an order, whoever made them: a stamp is later than every stamp that its maker has seen, and where two versions
claim a stage that only one may hold, the later claim wins, and of two equal ones that of the newer version.

Stages are decided here, from the labels that came back, and never by a filter of Vertex's: whether a label filter sees
the merged labels or only a version's own is not documented, and either reading makes some filter miss a version.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Final

from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STAGE_LABEL: Final = "stage"
CHANGED_AT_LABEL: Final = "vr-stage-changed-at"
CHANGED_BY_LABEL: Final = "vr-stage-changed-by"

_STAMP: Final = "%Y-%m-%dt%H-%M-%S-%fz"

# A stamp from the end of the calendar is a mistake, and nothing could be later than it.
_LAST_YEAR: Final = 9000


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

#: The stages that one version at a time can be given alone, by archiving whatever else is in them.
EXCLUSIVE: Final = (Stage.STAGING, Stage.PRODUCTION)


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


def check_exclusive(stage: Stage, *, archive_existing: bool) -> None:
    """Let ``archive_existing`` go with a stage that versions can be archived from.

    Raises:
        InvalidArgumentError: It goes with another stage.
    """
    if archive_existing and stage not in EXCLUSIVE:
        names = " or ".join(EXCLUSIVE)
        raise InvalidArgumentError(f"archive_existing=True goes with the stage {names}, not with {stage}.")


def stamp(moment: dt.datetime) -> str:
    """The moment as a label value; the values sort as the moments do."""
    return moment.astimezone(dt.UTC).strftime(_STAMP)


def moment_of(text: str | None) -> dt.datetime | None:
    """The moment that a stamp tells, or None where it is no stamp of ours."""
    try:
        moment = dt.datetime.strptime(text or "", _STAMP).replace(tzinfo=dt.UTC)
    except ValueError:
        return None
    return moment if moment.year < _LAST_YEAR else None


def next_moment(now: dt.datetime, seen: Iterable[dt.datetime | None]) -> dt.datetime:
    """Now, or the smallest moment that is later than all that were seen, where some clock runs ahead of ours."""
    latest = max((moment for moment in seen if moment is not None), default=None)
    return now if latest is None or latest < now else latest + dt.timedelta(microseconds=1)
