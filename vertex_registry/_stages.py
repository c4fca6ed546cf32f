"""Stages, stored as labels.

Vertex has no stages: a version is in a stage if its label ``stage`` has the stage's name in lower case. Every version
carries the label, even when its stage is None, because a read would otherwise show the label of its model.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from typing import TYPE_CHECKING, Final

from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STAGE_LABEL: Final = "stage"
CHANGED_AT_LABEL: Final = "vr-stage-changed-at"
CHANGED_BY_LABEL: Final = "vr-stage-changed-by"

_TIMESTAMP_FORMAT: Final = "%Y-%m-%dt%H-%M-%S-%fz"
# The same for reading: `strptime` takes six times as long, and a list has one in each version.
_TIMESTAMP: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)t(\d\d)-(\d\d)-(\d\d)-(\d{6})z", re.ASCII)

# A timestamp from the end of the calendar is a mistake, and no later one could follow it.
_LAST_YEAR: Final = 9000


class Stage(enum.StrEnum):
    """The stage of a version: None, Staging, Production or Archived.

    Create one from its name, in any case:

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
        """Return the value that the label ``stage`` has on versions in this stage."""
        return self.value.lower()


_BY_LABEL: Final = {stage.label: stage for stage in Stage}

#: The stages that ``archive_existing`` works with.
EXCLUSIVE: Final = (Stage.STAGING, Stage.PRODUCTION)


def stage_of(labels: Mapping[str, str]) -> Stage:
    """Return the stage that the labels name, or ``Stage.NONE`` if they name none."""
    return _BY_LABEL.get(labels.get(STAGE_LABEL, ""), Stage.NONE)


def check_stage(stage: Stage | str) -> Stage:
    """Return the stage with that name, in any case.

    Raises:
        InvalidArgumentError: There is no such stage.
    """
    try:
        return Stage(stage)
    except ValueError:
        names = ", ".join(Stage)
        raise InvalidArgumentError(f"There's no stage {quote(stage)}. Use one of {names}.") from None


def check_exclusive(stage: Stage, *, archive_existing: bool) -> None:
    """Check that ``archive_existing`` is only used with Staging or Production.

    Raises:
        InvalidArgumentError: It's used with another stage.
    """
    if archive_existing and stage not in EXCLUSIVE:
        names = " or ".join(EXCLUSIVE)
        raise InvalidArgumentError(f"archive_existing=True only works with the stage {names}, not with {stage}.")


def format_timestamp(moment: dt.datetime) -> str:
    """Return a time as a label value; the values sort in the order of the times."""
    return moment.astimezone(dt.UTC).strftime(_TIMESTAMP_FORMAT)


def parse_timestamp(text: str | None) -> dt.datetime | None:
    """Return the time in a timestamp label, or None if this package didn't write it."""
    if text is None or (match := _TIMESTAMP.fullmatch(text)) is None:
        return None
    try:
        moment = dt.datetime(*map(int, match.groups()), tzinfo=dt.UTC)  # type: ignore[misc,arg-type]  # seven numbers
    except ValueError:
        return None
    return moment if moment.year < _LAST_YEAR else None


def next_timestamp(now: dt.datetime, seen: Iterable[dt.datetime | None]) -> dt.datetime:
    """Return a time later than all the seen ones: now, or just after the latest if another clock runs ahead."""
    latest = max((moment for moment in seen if moment is not None), default=None)
    return now if latest is None or latest < now else latest + dt.timedelta(microseconds=1)
