"""The stage changes that a version remembers, in two labels.

The labels are written by the same update that changes the stage, so they can't disagree with it. They name the version
they belong to, because Vertex shows a model's labels on its versions too.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import zlib
from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry._stages import CHANGED_AT_LABEL, CHANGED_BY_LABEL, Stage, parse_timestamp, stage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: The labels that hold the changes: a text in base32, cut in two.
LABELS: Final[tuple[str, ...]] = ("vr-stage-history", "vr-stage-history-more")

#: How many changes are always remembered, and how many at most.
ALWAYS_REMEMBERED: Final = 12
MOST_REMEMBERED: Final = 40

_LABEL_SIZE: Final = 63
_BYTES: Final = len(LABELS) * _LABEL_SIZE * 5 // 8
_DIGEST: Final = 2
_FORMAT: Final = 0x10
_DROPPED, _AUTHORS = 0x01, 0x02
_STAGES: Final = tuple(Stage)  # an index into this is what is stored: two bits
_SUCCESSOR, _DOUBT, _EXACT, _RESTORED = 0x04, 0x08, 0x10, 0x20
_SHIFT: Final = 6
_SECOND: Final = 1_000_000
#: Up to about 9 minutes between two changes the time is kept exactly; beyond that a second is exact enough.
_EXACT_DISTANCE: Final = 2**29
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_TICK: Final = 2**57  # the year 6536
_LATEST_AUTHOR: Final = 1
_MOST_AUTHORS: Final = 15
_MOST_INFLATED: Final = 4096
# What account names often hold: deflate refers to it instead of spelling it out.
_COMMON: Final = (
    b"github-actions@gitlab-runner@airflow@composer@deploy@pipeline@trainer@compute@developer.gserviceaccount.com"
    b"-prod-staging-dev@example.com@gmail.com.iam.gserviceaccount.com"
)


@attrs.frozen
class Change:
    """One change of a version's stage.

    Attributes:
        stage: The stage the version was put in.
        at: When. The latest changes are exact, older ones are cut to the second.
        by: Who changed it, or None if that isn't known.
        successor: The number of the version whose promotion caused the change, or None.
        doubt: Whether another tool changed the stage at an unknown time between the change before and this one.
        exact: Whether the time is exact, and not cut to the second.
        restored: Whether a rollback put the version back in the stage.
    """

    stage: Stage
    at: dt.datetime
    by: str | None = None
    successor: int | None = None
    doubt: bool = False
    exact: bool = True
    restored: bool = False


@attrs.frozen
class Changes:
    """What a version remembers of its stage changes.

    Attributes:
        latest_first: The changes.
        complete: Whether no older change was dropped.
        doubt: Whether another tool changed the stage at an unknown time after the latest change.
    """

    latest_first: tuple[Change, ...] = ()
    complete: bool = True
    doubt: bool = False

    def __iter__(self) -> Iterator[Change]:
        return iter(self.latest_first)


def read(version: int, notes: Mapping[str, str]) -> Changes:
    """Return the changes that a version's notes hold.

    A version that an earlier release wrote has only the stamp of its last change, so its history isn't complete.
    """
    stamped = parse_timestamp(notes.get(CHANGED_AT_LABEL))
    stage = stage_of(notes)
    by = notes.get(CHANGED_BY_LABEL)
    kept = _decode(version, notes, by)
    if stamped is None:
        unstamped = stage is not Stage.NONE or bool(kept.latest_first)
        return attrs.evolve(kept, doubt=unstamped)
    if not kept.latest_first:
        return Changes((Change(stage, stamped, by),), complete=False)
    latest = kept.latest_first[0]
    if latest.at == stamped:
        named = (attrs.evolve(latest, by=by), *kept.latest_first[1:])
        return attrs.evolve(kept, latest_first=named, doubt=latest.stage is not stage)
    # An earlier release changed the stage: it moved the stamp and left the history.
    older = tuple(attrs.evolve(change, by=None) if change.by == by else change for change in kept.latest_first)
    return attrs.evolve(kept, latest_first=(Change(stage, stamped, by, doubt=True), *older))


def write(version: int, before: Changes, change: Change) -> dict[str, str | None]:
    """Return the notes that hold the changes before and one more; None removes a label.

    If the room is short, the authors of the oldest changes are dropped first, then the changes beyond the latest 12,
    then the fractions of a second.
    """
    latest = attrs.evolve(change, doubt=change.doubt or before.doubt)
    changes = [latest, *before.latest_first][:MOST_REMEMBERED]
    complete = before.complete and len(changes) == 1 + len(before.latest_first)
    blob = _smallest_loss(version, changes, complete=complete)
    text = base64.b32encode(blob).decode().rstrip("=").lower()
    parts = [text[start : start + _LABEL_SIZE] or None for start in range(0, len(LABELS) * _LABEL_SIZE, _LABEL_SIZE)]
    return dict(zip(LABELS, parts, strict=True))


def longest_labels() -> dict[str, str | None]:
    """Return notes of the size that a version's history can grow to."""
    return dict.fromkeys(LABELS, "7" * _LABEL_SIZE)


def _smallest_loss(version: int, changes: list[Change], *, complete: bool) -> bytes:
    authors = len(changes)
    while True:
        blob = _encode(version, changes, complete=complete, authors=authors)
        if len(blob) <= _BYTES:
            return blob
        if authors:
            authors -= 1
        elif len(changes) > ALWAYS_REMEMBERED:
            changes, complete = changes[:-1], False
        elif any(change.exact for change in changes[1:]):
            changes = [changes[0], *(attrs.evolve(change, exact=False) for change in changes[1:])]
        elif any(change.successor is not None for change in changes):
            changes = [attrs.evolve(change, successor=None) for change in changes]
        else:
            changes, complete = changes[:-1], False


def _encode(version: int, changes: Sequence[Change], *, complete: bool, authors: int) -> bytes:
    named = _encode_authors([change.by for change in changes[:authors]], changes[0].by)
    body = bytearray([_FORMAT | (0 if complete else _DROPPED) | (_AUTHORS if named else 0)])
    body += _number(version)
    body += _number(len(changes))
    distance, newer, exact = _ticks(changes[0].at), changes[0].at, True
    for position, change in enumerate(changes):
        if position:
            distance = max(0, _ticks(newer) - _ticks(change.at))
            exact = exact and change.exact and distance < _EXACT_DISTANCE
            if not exact:
                distance = max(0, _ticks(newer) // _SECOND - _ticks(change.at) // _SECOND)
        kind = _STAGES.index(change.stage) | (0 if change.successor is None else _SUCCESSOR)
        kind |= (_DOUBT if change.doubt else 0) | (_EXACT if exact else 0) | (_RESTORED if change.restored else 0)
        body += _number(distance << _SHIFT | kind)
        if change.successor is not None:
            body += _number(change.successor)
        newer = change.at
    return _digest(body + named) + bytes(body + named)


def _encode_authors(authors: Sequence[str | None], latest: str | None) -> bytes:
    """Encode who made each change as a number of four bits, and the names that no other label spells out."""
    names = list(dict.fromkeys(by for by in authors if by is not None and by != latest))[: _MOST_AUTHORS - 1]
    numbers: dict[str | None, int] = {None: 0, **{name: number for number, name in enumerate(names, start=2)}}
    if latest is not None:
        numbers[latest] = _LATEST_AUTHOR
    indexes = [numbers.get(by, 0) for by in authors]
    while indexes and not indexes[-1]:
        indexes.pop()
    if not indexes:
        return b""
    pairs = zip(indexes[::2], [*indexes[1::2], 0], strict=False)
    encoded = _number(len(indexes)) + bytes(high << 4 | low for high, low in pairs)
    if not names:
        return encoded
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_COMMON)
    text = "\n".join(names).encode("utf-8", "surrogatepass")
    return encoded + deflate.compress(text) + deflate.flush()


def _decode(version: int, notes: Mapping[str, str], latest_author: str | None) -> Changes:
    """Return what was encoded, or nothing if the labels aren't a history of this version."""
    text = "".join(notes.get(key, "") for key in LABELS).upper()
    if not 0 < len(text) <= len(LABELS) * _LABEL_SIZE:
        return Changes()
    try:
        blob = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        return Changes()
    body = blob[_DIGEST:]
    if blob[:_DIGEST] != _digest(body) or not body or body[0] & 0xF0 != _FORMAT:
        return Changes()
    try:
        return _decode_body(version, body, latest_author)
    except (IndexError, ValueError, OverflowError, zlib.error):
        return Changes()


def _decode_body(version: int, body: bytes, latest_author: str | None) -> Changes:
    cursor = iter(body[1:])
    if _take(cursor) != version:
        return Changes()
    changes: list[Change] = []
    ticks = 0
    for position in range(_take(cursor)):
        value = _take(cursor)
        distance, exact = value >> _SHIFT, bool(value & _EXACT)
        if not position:
            ticks = distance
        elif exact:
            ticks -= distance
        else:
            ticks = (ticks // _SECOND - distance) * _SECOND
        if not 0 <= ticks < _LAST_TICK:
            return Changes()
        changes.append(
            Change(
                _STAGES[value & 0x03],
                _EPOCH + dt.timedelta(microseconds=ticks),
                successor=_take(cursor) if value & _SUCCESSOR else None,
                doubt=bool(value & _DOUBT),
                exact=exact,
                restored=bool(value & _RESTORED),
            )
        )
    if body[0] & _AUTHORS:
        count = _take(cursor)
        pairs = [_byte(cursor) for _ in range((count + 1) // 2)]
        names = [None, latest_author, *_inflate(bytes(cursor))]
        for position in range(min(count, len(changes))):
            index = pairs[position // 2] >> 4 if position % 2 == 0 else pairs[position // 2] & 0x0F
            changes[position] = attrs.evolve(changes[position], by=names[index])
    return Changes(tuple(changes), complete=not body[0] & _DROPPED)


def _inflate(packed: bytes) -> list[str]:
    if not packed:
        return []
    inflate = zlib.decompressobj(-15, zdict=_COMMON)
    return inflate.decompress(packed, _MOST_INFLATED).decode("utf-8", "surrogatepass").split("\n")


def _ticks(moment: dt.datetime) -> int:
    return max(0, (moment - _EPOCH) // dt.timedelta(microseconds=1))


def _number(value: int) -> bytes:
    """Encode a number in groups of seven bits, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _byte(cursor: Iterator[int]) -> int:
    if (value := next(cursor, None)) is None:
        raise ValueError("The history ends early.")
    return value


def _take(cursor: Iterator[int]) -> int:
    value = shift = 0
    while True:
        byte = _byte(cursor)
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:  # noqa: PLR2004  # likewise
            return value
        shift += 7


def _digest(body: Iterable[int]) -> bytes:
    return hashlib.sha256(bytes(body)).digest()[:_DIGEST]
