"""Answer which version was in a stage, and when, from what the versions remember. Pure, and never a guess."""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry import _changes, _labels, _names
from vertex_registry._records import StageChange, StageHistory, VersionDiff
from vertex_registry.errors import HistoryUnknownError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vertex_registry._changes import Change, Changes
    from vertex_registry._records import ModelVersion
    from vertex_registry._stages import Stage

#: The fields that are compared besides metadata.
_COMPARED: Final = (
    "version_name",
    "description",
    "stage",
    "stage_changed_at",
    "stage_changed_by",
    "aliases",
    "artifact_uri",
    "container",
    "deployed_to",
    "created_at",
    "updated_at",
)

#: How far the clocks of Vertex and of those who change stages may be apart.
_SKEW: Final = dt.timedelta(minutes=5)
_SECOND: Final = dt.timedelta(seconds=1)
_TICK: Final = dt.timedelta(microseconds=1)


class _Order(enum.Enum):
    BEFORE = enum.auto()
    SAME = enum.auto()
    AFTER = enum.auto()
    UNCLEAR = enum.auto()  # both are in the same second, and one of them isn't exact


@attrs.frozen
class _Time:
    """A time, exact or cut to the second."""

    at: dt.datetime
    exact: bool = True

    def compare(self, other: _Time) -> _Order:
        if self.exact and other.exact and self.at == other.at:
            return _Order.SAME
        if self._end() < other.at:
            return _Order.BEFORE
        return _Order.AFTER if self.at > other._end() else _Order.UNCLEAR

    def _end(self) -> dt.datetime:
        return self.at if self.exact else self.at + _SECOND - _TICK


@attrs.frozen
class _Remembered:
    """A version and its changes of stage."""

    version: ModelVersion
    number: int
    changes: Changes


class _Absent(enum.Enum):
    """Why a version doesn't count as being in a stage at a time."""

    OUT = enum.auto()
    UNKNOWN = enum.auto()


def changes_of(version: ModelVersion) -> Changes:
    """Return what a version remembers of its stage changes."""
    return _changes.read(int(version.version), _labels.read(version.labels).own_labels)


def stage_history(versions: Iterable[ModelVersion]) -> StageHistory:
    """Return every remembered change of these versions, newest first."""
    remembered = [_remember(version) for version in versions]
    changes = [
        StageChange(
            version=one.version.version,
            version_name=one.version.version_name,
            stage=change.stage,
            changed_at=change.at,
            changed_by=change.by,
        )
        for one in remembered
        for change in one.changes
    ]
    changes.sort(key=lambda change: (change.changed_at, int(change.version)), reverse=True)
    complete = all(_is_complete(one.changes) for one in remembered)
    return StageHistory(changes=tuple(changes), complete=complete)


def version_at(versions: Iterable[ModelVersion], when: dt.datetime, stage: Stage) -> ModelVersion | None:
    """Return the version that was in a stage at a time, or None if none was.

    Args:
        versions: All versions of the model that exist.
        when: The time.
        stage: The stage.

    Raises:
        HistoryUnknownError: The history doesn't prove an answer.
    """
    remembered = sorted(map(_remember, versions), key=lambda one: one.number)
    if not any(_may_exist(one, _Time(when)) for one in remembered):
        raise HistoryUnknownError(
            f"None of the model's versions existed at {when.isoformat()}. If an earlier model had the "
            "name, its history was deleted with it.",
            resource=remembered[0].version.model_resource_name if remembered else None,
        )
    found = _holder(remembered, _Time(when), stage)
    return None if found is None else found.version


def before_current(versions: Iterable[ModelVersion], stage: Stage, *, name: str) -> tuple[ModelVersion, ModelVersion]:
    """Return the version that is in a stage, and the one that was in it before.

    The history of a stage is read as a stack: a version that comes back takes what came after it off again. So going
    back twice goes back two steps.

    Raises:
        NotFoundError: Nothing is in the stage, or nothing was in it before.
        HistoryUnknownError: The history doesn't prove what was in it before.
    """
    try:
        return _before_current(versions, stage, name=name)
    except HistoryUnknownError as error:
        raise HistoryUnknownError(
            f"{error} Choose a version and put it in the stage with set_stage().", resource=error.resource
        ) from error.__cause__


def _before_current(versions: Iterable[ModelVersion], stage: Stage, *, name: str) -> tuple[ModelVersion, ModelVersion]:
    remembered = sorted(map(_remember, versions), key=lambda one: one.number)
    holders = [one for one in remembered if one.version.stage is stage]
    current = _latest_claim(holders, stage)
    if current is None:
        raise NotFoundError(
            f"{name!r} has no version in {stage}, so there's nothing to roll back. Put one there with set_stage().",
            resource=name,
        )
    if (leaving := _latest_claim([one for one in holders if one is not current], stage)) and _was_restored(current):
        return leaving.version, current.version  # an earlier rollback was cut off here
    if not _is_complete(current.changes):
        raise HistoryUnknownError(
            f"Version {current.number} of {name!r} is in {stage}, and its history isn't complete.",
            resource=name,
        )
    entry = _first_entry(remembered, current, stage)
    previous = _holder(remembered, entry, stage, before=current)
    if previous is None:
        previous = _last_that_left(remembered, current, entry, stage)
    if previous is None:
        raise NotFoundError(
            f"Nothing was in {stage} before version {current.number} of {name!r}. Choose a version for set_stage().",
            resource=name,
        )
    return current.version, previous.version


def diff(a: ModelVersion, b: ModelVersion) -> VersionDiff:
    """Return what differs between two versions: what was registered, and where they are now."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in sorted(a.metadata.keys() | b.metadata.keys()):
        before, after = a.metadata.get(key), b.metadata.get(key)
        if (key in a.metadata) != (key in b.metadata) or not _labels.json_equal(before, after):
            changes[f"metadata.{key}"] = (before, after)
    for field in _COMPARED:
        before, after = getattr(a, field), getattr(b, field)
        if before != after:
            changes[field] = (before, after)
    return VersionDiff(a=a, b=b, changes=changes)


def _remember(version: ModelVersion) -> _Remembered:
    return _Remembered(version, int(version.version), changes_of(version))


def _was_restored(one: _Remembered) -> bool:
    return bool(one.changes.latest_first) and one.changes.latest_first[0].restored


def _is_complete(changes: Changes) -> bool:
    return changes.complete and not changes.doubt and not any(change.doubt for change in changes)


def _holder(
    remembered: Sequence[_Remembered], time: _Time, stage: Stage, *, before: _Remembered | None = None
) -> _Remembered | None:
    """Return the version in the stage at a time, the last to enter it; or the one just before a version entered."""
    present: list[tuple[_Remembered, Change]] = []
    unknown: list[_Remembered] = []
    for one in remembered:
        if one is before:
            continue
        state = _state(one, time, stage, before=before is not None)
        if isinstance(state, _Absent):
            if state is _Absent.UNKNOWN:
                unknown.append(one)
        else:
            present.append((one, state))
    if unknown:
        raise HistoryUnknownError(
            f"Version {unknown[0].number} may have been in {stage} at {time.at.isoformat()}: its history doesn't go "
            "back that far, or another tool changed its stage. See stage_history().",
            resource=unknown[0].version.resource_name,
        )
    if not present:
        _check_deleted(remembered, time, stage)
        return None
    winner, entered = present[0]
    for one, change in present[1:]:
        order = _time_of(change).compare(_time_of(entered))
        if order is _Order.UNCLEAR:
            raise HistoryUnknownError(
                f"Versions {winner.number} and {one.number} entered {stage} in the same second, "
                f"{change.at.isoformat(timespec='seconds')}. Which one came last isn't known.",
                resource=one.version.resource_name,
            )
        if order is not _Order.BEFORE:  # of two equal stamps, the newer version's wins
            winner, entered = one, change
    return winner


def _state(one: _Remembered, time: _Time, stage: Stage, *, before: bool) -> Change | _Absent:
    """Return the change that had put the version in the stage by then, or why it wasn't there."""
    newer: Change | None = None
    unclear = False
    for change in one.changes:
        order = _time_of(change).compare(time)
        if order is _Order.UNCLEAR and before:
            unclear = unclear or change.stage is stage
        elif order is _Order.BEFORE or (order is not _Order.AFTER and not before):
            doubt = one.changes.doubt if newer is None else newer.doubt
            if doubt or unclear:
                return _Absent.UNKNOWN
            return change if change.stage is stage else _Absent.OUT
        newer = change
    doubt = one.changes.doubt if newer is None else newer.doubt
    if unclear or ((doubt or not one.changes.complete) and _may_exist(one, time)):
        return _Absent.UNKNOWN
    return _Absent.OUT


def _may_exist(one: _Remembered, time: _Time) -> bool:
    """Return whether a version may have existed at a time."""
    return one.version.created_at - _SKEW <= time.at or any(change.at <= time.at for change in one.changes)


def _check_deleted(remembered: Sequence[_Remembered], time: _Time, stage: Stage) -> None:
    """Raise an error if a version that was deleted may have been in the stage at that time."""
    known = {one.number for one in remembered}
    known |= {change.successor for one in remembered for change in one.changes if change.successor is not None}
    known |= {_names.highest_number(one.version._hidden_aliases) for one in remembered}  # noqa: SLF001  # the package's own field
    top = max(known, default=0)
    older: _Remembered | None = None
    by_number = {one.number: one for one in remembered}
    for number in range(1, top + 1):
        if number in by_number:
            older = by_number[number]
        elif older is None or _may_exist(older, time):
            raise HistoryUnknownError(
                f"Version {number} was deleted, and may have been in {stage} at {time.at.isoformat()}. "
                "A version's history goes with it.",
                resource=remembered[0].version.model_resource_name if remembered else None,
            )


def _latest_claim(holders: Sequence[_Remembered], stage: Stage) -> _Remembered | None:
    """Return the version whose claim on the stage is the latest."""

    def claim(one: _Remembered) -> tuple[dt.datetime, int]:
        entered = [change.at for change in one.changes if change.stage is stage]
        return max(entered, default=dt.datetime.min.replace(tzinfo=dt.UTC)), one.number

    return max(holders, key=claim, default=None)


def _first_entry(remembered: Sequence[_Remembered], current: _Remembered, stage: Stage) -> _Time:
    """Return when the current version entered the stage, before it was left and came back."""
    entries = sorted(
        ((change.at, one.number, change) for one in remembered for change in one.changes if change.stage is stage),
        key=lambda entry: entry[:2],
    )
    stack: list[tuple[int, Change]] = []
    for _, number, change in entries:
        held = [held for held, _ in stack]
        if number in held:
            del stack[held.index(number) + 1 :]
        else:
            stack.append((number, change))
    # If another version came back and left again since, the current one isn't on the stack any more.
    latest = next(change for change in current.changes if change.stage is stage)
    return _time_of(next((change for number, change in stack if number == current.number), latest))


def _last_that_left(
    remembered: Sequence[_Remembered], current: _Remembered, entry: _Time, stage: Stage
) -> _Remembered | None:
    """Return the last version in the stage before an entry, if the stage was empty for a while."""
    others = [one for one in remembered if one is not current]
    left = [
        change.at
        for one in others
        for change, older in zip(one.changes.latest_first, one.changes.latest_first[1:], strict=False)
        if older.stage is stage and change.stage is not stage and change.at < entry.at
    ]
    if not left:
        return None
    return _holder(remembered, _Time(max(left)), stage, before=current)


def _time_of(change: Change) -> _Time:
    return _Time(change.at, change.exact)
