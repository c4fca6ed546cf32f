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

#: How far the clocks of Vertex and of those who change stages may be apart.
_SKEW: Final = dt.timedelta(minutes=5)
_SECOND: Final = dt.timedelta(seconds=1)
_TICK: Final = dt.timedelta(microseconds=1)


class IncompleteListError(Exception):
    """The answer depends on versions that aren't in the list."""


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
    SAME_SECOND = enum.auto()  # it entered or left in that second, and nobody knows when


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


def version_at(
    versions: Iterable[ModelVersion], when: dt.datetime, stage: Stage, *, complete: bool = True
) -> ModelVersion | None:
    """Return the version that was in a stage at a time, or None if none was.

    Args:
        versions: The versions of the model that are in a stage or have a history, or all of them.
        when: The time.
        stage: The stage.
        complete: Whether those are all versions that exist.

    Raises:
        HistoryUnknownError: The history doesn't prove an answer.
        IncompleteListError: The answer depends on the versions that exist besides these.
    """
    remembered = sorted(map(_remember, versions), key=lambda one: one.number)
    if not any(_existed(one, _Time(when)) for one in remembered):
        _check_complete(complete)
        raise HistoryUnknownError(
            f"None of the model's versions existed at {when.isoformat()}. If an earlier model had the "
            "name, its history was deleted with it.",
            resource=remembered[0].version.model_resource_name if remembered else None,
        )
    found = _holder(remembered, _Time(when), stage, complete=complete)
    return None if found is None else found.version


def before_current(
    versions: Iterable[ModelVersion], stage: Stage, *, name: str, complete: bool = True
) -> tuple[ModelVersion, ModelVersion]:
    """Return the version that is in a stage, and the one that was in it before.

    The history of a stage is read as a stack: a promotion puts a version on top, and a rollback takes off what came
    after the version that it restores. So going back twice goes back two steps, and promoting an old version again is a
    step like any other.

    Args:
        versions: The versions of the model that are in a stage or have a history, or all of them.
        stage: The stage.
        name: The name of the model, for errors.
        complete: Whether those are all versions that exist.

    Raises:
        NotFoundError: Nothing is in the stage, or nothing was in it before.
        HistoryUnknownError: The history doesn't prove what was in it before.
        IncompleteListError: The answer depends on the versions that exist besides these.
    """
    try:
        return _before_current(versions, stage, name=name, complete=complete)
    except HistoryUnknownError as error:
        raise HistoryUnknownError(
            f"{error} Choose a version and put it in the stage with set_stage().", resource=error.resource
        ) from error.__cause__


def _before_current(
    versions: Iterable[ModelVersion], stage: Stage, *, name: str, complete: bool
) -> tuple[ModelVersion, ModelVersion]:
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
    previous = _predecessor(remembered, current, stage, complete=complete)
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
    for field in VersionDiff.FIELDS:
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
    remembered: Sequence[_Remembered],
    time: _Time,
    stage: Stage,
    *,
    before: _Remembered | None = None,
    complete: bool,
) -> _Remembered | None:
    """Return the version in the stage at a time, the last to enter it; or the one just before a version entered."""
    present: list[tuple[_Remembered, Change]] = []
    unknown: list[tuple[_Remembered, _Absent]] = []
    for one in remembered:
        if one is before:
            continue
        state = _state(one, time, stage, before=before is not None)
        if isinstance(state, _Absent):
            if state is not _Absent.OUT:
                unknown.append((one, state))
        else:
            present.append((one, state))
    if unknown:
        one, state = unknown[0]
        why = (
            "it entered or left in that second, and the exact time isn't kept"
            if state is _Absent.SAME_SECOND
            else "its history doesn't go back that far, or another tool changed its stage"
        )
        raise HistoryUnknownError(
            f"Version {one.number} may have been in {stage} at {time.at.isoformat()}: {why}. See stage_history().",
            resource=one.version.resource_name,
        )
    if not present:
        _check_complete(complete)
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
    unclear: list[Change] = []
    for change in one.changes:
        order = _time_of(change).compare(time)
        if order is _Order.UNCLEAR and not before and change.at == time.at:
            order = _Order.SAME  # a change counts from the time that the history shows
        if order is _Order.UNCLEAR:
            unclear.append(change)
        elif order is _Order.BEFORE or (order is not _Order.AFTER and not before):
            doubt = one.changes.doubt if newer is None else newer.doubt
            if doubt or (before and any(each.stage is stage for each in unclear)):
                return _Absent.UNKNOWN
            if not before and any((each.stage is stage) != (change.stage is stage) for each in unclear):
                return _Absent.SAME_SECOND
            return change if change.stage is stage else _Absent.OUT
        newer = change
    doubt = one.changes.doubt if newer is None else newer.doubt
    if (doubt or not one.changes.complete) and _may_exist(one, time):
        return _Absent.UNKNOWN
    if any(each.stage is stage for each in unclear):
        return _Absent.UNKNOWN if before else _Absent.SAME_SECOND
    return _Absent.OUT


def _existed(one: _Remembered, time: _Time) -> bool:
    """Return whether a version existed at a time, if the clocks agree."""
    return one.version.created_at <= time.at or any(change.at <= time.at for change in one.changes)


def _may_exist(one: _Remembered, time: _Time) -> bool:
    """Return whether a version may have existed at a time, even if the clocks disagree."""
    return _existed(one, _Time(time.at + _SKEW))


def _check_complete(complete: bool) -> None:
    if not complete:
        raise IncompleteListError


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


@attrs.frozen(eq=False)
class _Entry:
    """A version's entry into a stage.

    Attributes:
        number: The version's number.
        at: When it entered.
        before: The entries of those that were in the stage before, the latest last.
        since: The time just before which these were in the stage. It's the entry's, unless the stage was empty.
    """

    number: int
    at: _Time
    before: tuple[_Entry, ...]
    since: _Time


def _predecessor(
    remembered: Sequence[_Remembered], current: _Remembered, stage: Stage, *, complete: bool
) -> _Remembered | None:
    """Return the version that was in a stage before the current one entered, or None if there was none.

    Raises:
        HistoryUnknownError: The history doesn't prove it.
    """
    entry = _replay(remembered, stage)[current.number]
    found = _holder(remembered, entry.at, stage, before=current, complete=complete)
    if found is None and entry.before:
        found = _holder(remembered, entry.since, stage, before=current, complete=complete)
    expected = entry.before[-1].number if entry.before else None
    incomplete = any(not _is_complete(one.changes) for one in remembered)
    if expected != (found and found.number) or (found is None and incomplete):
        raise HistoryUnknownError(
            f"What was in {stage} before version {current.number} isn't known: some changes were dropped, or are cut "
            "to the same second. See stage_history().",
            resource=current.version.resource_name,
        )
    return found


def _replay(remembered: Sequence[_Remembered], stage: Stage) -> dict[int, _Entry]:
    """Return the entries of the versions that have been in a stage, each its latest one."""
    changes = [(change.at, one.number, change) for one in remembered for change in one.changes]
    claims: dict[int, dt.datetime] = {}
    entries: dict[int, _Entry] = {}
    left: _Entry | None = None  # the last one, after which the stage was empty
    empty_since = _Time(dt.datetime.min.replace(tzinfo=dt.UTC))
    for at, number, change in sorted(changes, key=lambda found: found[:2]):
        if change.stage is stage:
            present = tuple(entries[one] for one in sorted(claims, key=lambda one: (claims[one], one)))
            restored = _restored_entry(present, number) if change.restored else None
            if not present and left is not None:
                before, since = _others((left,), number, empty_since)
            else:
                before, since = _others(present, number, _time_of(change))
            entries[number] = restored or _Entry(number, _time_of(change), before, since)
            claims[number] = at
        elif claims.pop(number, None) is not None and not claims:
            left, empty_since = entries[number], _time_of(change)
    return entries


def _restored_entry(present: Sequence[_Entry], number: int) -> _Entry | None:
    """Return the entry that a rollback to a version goes back to, given the entries of those in the stage."""
    others = [entry for entry in present if entry.number != number]
    before = others[-1].before if others else ()
    return next((entry for entry in reversed(before) if entry.number == number), None)


def _others(entries: tuple[_Entry, ...], number: int, since: _Time) -> tuple[tuple[_Entry, ...], _Time]:
    """Return the entries of other versions and their time; if there are none, earlier ones."""
    while entries and all(entry.number == number for entry in entries):
        entries, since = entries[-1].before, entries[-1].since
    return tuple(entry for entry in entries if entry.number != number), since


def _time_of(change: Change) -> _Time:
    return _Time(change.at, change.exact)
