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

#: The labels that hold the changes: a text in base32, split in two.
LABELS: Final[tuple[str, ...]] = ("vr-stage-history", "vr-stage-history-more")

#: How many changes are always remembered, and how many at most.
ALWAYS_REMEMBERED: Final = 12
MOST_REMEMBERED: Final = 40

_LABEL_SIZE: Final = 63
_MAX_BYTES: Final = len(LABELS) * _LABEL_SIZE * 5 // 8
_DIGEST_SIZE: Final = 2
_FORMAT: Final = 0x10
_INCOMPLETE, _HAS_AUTHORS = 0x01, 0x02
_STAGES: Final = tuple(Stage)  # labels store an index into this, in two bits
_HAS_SUCCESSOR, _DOUBT, _EXACT, _RESTORED = 0x04, 0x08, 0x10, 0x20
_FLAG_BITS: Final = 6
_SECOND: Final = 1_000_000
#: Up to about 9 minutes between two changes the time is kept exactly; beyond that a second is exact enough.
_EXACT_DISTANCE: Final = 2**29
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_TIME: Final = 2**57  # the year 6536
_LATEST_AUTHOR: Final = 1
_MAX_AUTHORS: Final = 15
_MAX_INFLATED: Final = 4096
# Common parts of account names, which deflate refers to instead of spelling them out.
_DEFLATE_DICTIONARY: Final = (
    b"github-actions@gitlab-runner@airflow@composer@deploy@pipeline@trainer@compute@developer.gserviceaccount.com"
    b"-prod-staging-dev@example.com@gmail.com.iam.gserviceaccount.com"
)


@attrs.frozen
class Change:
    """One change of a version's stage.

    Attributes:
        stage: The stage the version was put in.
        at: The time of the change. The latest changes are exact, older ones are cut to the second.
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
        latest_first: The changes, newest first.
        complete: Whether no older change was dropped.
        doubt: Whether another tool changed the stage at an unknown time after the latest change.
    """

    latest_first: tuple[Change, ...] = ()
    complete: bool = True
    doubt: bool = False

    def __iter__(self) -> Iterator[Change]:
        return iter(self.latest_first)


def read(version: int, own_labels: Mapping[str, str]) -> Changes:
    """Return the changes in a version's own labels.

    A version that an earlier release wrote has only the timestamp of its last change, so its history isn't complete.
    """
    stamped = parse_timestamp(own_labels.get(CHANGED_AT_LABEL))
    stage = stage_of(own_labels)
    by = own_labels.get(CHANGED_BY_LABEL)
    kept = _decode(version, own_labels, by)
    if stamped is None:
        unstamped = stage is not Stage.NONE or bool(kept.latest_first)
        return attrs.evolve(kept, doubt=unstamped)
    if not kept.latest_first:
        return Changes((Change(stage, stamped, by),), complete=False)
    latest = kept.latest_first[0]
    if latest.at == stamped:
        named = (attrs.evolve(latest, by=by), *kept.latest_first[1:])
        return attrs.evolve(kept, latest_first=named, doubt=latest.stage is not stage)
    # An earlier release changed the stage: it updated the timestamp and left the history.
    older = tuple(attrs.evolve(change, by=None) if change.by == by else change for change in kept.latest_first)
    return attrs.evolve(kept, latest_first=(Change(stage, stamped, by, doubt=True), *older))


def write(version: int, before: Changes, change: Change) -> dict[str, str | None]:
    """Return the labels that hold the changes so far and one more; None removes a label.

    If space is short, the authors of the oldest changes are dropped first, then the changes beyond the latest 12,
    then the fractions of a second.
    """
    latest = attrs.evolve(change, doubt=change.doubt or before.doubt)
    changes = [latest, *before.latest_first][:MOST_REMEMBERED]
    complete = before.complete and len(changes) == 1 + len(before.latest_first)
    blob = _encode_to_fit(version, changes, complete=complete)
    text = base64.b32encode(blob).decode().rstrip("=").lower()
    parts = [text[start : start + _LABEL_SIZE] or None for start in range(0, len(LABELS) * _LABEL_SIZE, _LABEL_SIZE)]
    return dict(zip(LABELS, parts, strict=True))


def longest_labels() -> dict[str, str | None]:
    """Return labels of the largest size that a version's history can have."""
    return dict.fromkeys(LABELS, "7" * _LABEL_SIZE)


def _encode_to_fit(version: int, changes: list[Change], *, complete: bool) -> bytes:
    authors = len(changes)
    while True:
        blob = _encode(version, changes, complete=complete, authors=authors)
        if len(blob) <= _MAX_BYTES:
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
    body = bytearray([_FORMAT | (0 if complete else _INCOMPLETE) | (_HAS_AUTHORS if named else 0)])
    body += _encode_number(version)
    body += _encode_number(len(changes))
    distance, newer, exact = _microseconds(changes[0].at), changes[0].at, True
    for position, change in enumerate(changes):
        if position:
            distance = max(0, _microseconds(newer) - _microseconds(change.at))
            exact = exact and change.exact and distance < _EXACT_DISTANCE
            if not exact:
                distance = max(0, _microseconds(newer) // _SECOND - _microseconds(change.at) // _SECOND)
        kind = _STAGES.index(change.stage) | (0 if change.successor is None else _HAS_SUCCESSOR)
        kind |= (_DOUBT if change.doubt else 0) | (_EXACT if exact else 0) | (_RESTORED if change.restored else 0)
        body += _encode_number(distance << _FLAG_BITS | kind)
        if change.successor is not None:
            body += _encode_number(change.successor)
        newer = change.at
    return _digest_of(body + named) + bytes(body + named)


def _encode_authors(authors: Sequence[str | None], latest: str | None) -> bytes:
    """Encode who made each change as a number of four bits, and the names that no other label spells out."""
    names = list(dict.fromkeys(by for by in authors if by is not None and by != latest))[: _MAX_AUTHORS - 1]
    numbers: dict[str | None, int] = {None: 0, **{name: number for number, name in enumerate(names, start=2)}}
    if latest is not None:
        numbers[latest] = _LATEST_AUTHOR
    indexes = [numbers.get(by, 0) for by in authors]
    while indexes and not indexes[-1]:
        indexes.pop()
    if not indexes:
        return b""
    pairs = zip(indexes[::2], [*indexes[1::2], 0], strict=False)
    encoded = _encode_number(len(indexes)) + bytes(high << 4 | low for high, low in pairs)
    if not names:
        return encoded
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DEFLATE_DICTIONARY)
    text = "\n".join(names).encode("utf-8", "surrogatepass")
    return encoded + deflate.compress(text) + deflate.flush()


def _decode(version: int, own_labels: Mapping[str, str], latest_author: str | None) -> Changes:
    """Return what was encoded, or nothing if the labels aren't a history of this version."""
    text = "".join(own_labels.get(key, "") for key in LABELS).upper()
    if not 0 < len(text) <= len(LABELS) * _LABEL_SIZE:
        return Changes()
    try:
        blob = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        return Changes()
    body = blob[_DIGEST_SIZE:]
    if blob[:_DIGEST_SIZE] != _digest_of(body) or not body or body[0] & 0xF0 != _FORMAT:
        return Changes()
    try:
        return _decode_body(version, body, latest_author)
    except (IndexError, ValueError, OverflowError, zlib.error):
        return Changes()


def _decode_body(version: int, body: bytes, latest_author: str | None) -> Changes:
    cursor = iter(body[1:])
    if _read_number(cursor) != version:
        return Changes()
    changes: list[Change] = []
    ticks = 0
    for position in range(_read_number(cursor)):
        value = _read_number(cursor)
        distance, exact = value >> _FLAG_BITS, bool(value & _EXACT)
        if not position:
            ticks = distance
        elif exact:
            ticks -= distance
        else:
            ticks = (ticks // _SECOND - distance) * _SECOND
        if not 0 <= ticks < _LAST_TIME:
            return Changes()
        changes.append(
            Change(
                _STAGES[value & 0x03],
                _EPOCH + dt.timedelta(microseconds=ticks),
                successor=_read_number(cursor) if value & _HAS_SUCCESSOR else None,
                doubt=bool(value & _DOUBT),
                exact=exact,
                restored=bool(value & _RESTORED),
            )
        )
    if body[0] & _HAS_AUTHORS:
        count = _read_number(cursor)
        pairs = [_read_byte(cursor) for _ in range((count + 1) // 2)]
        names = [None, latest_author, *_inflate(bytes(cursor))]
        for position in range(min(count, len(changes))):
            index = pairs[position // 2] >> 4 if position % 2 == 0 else pairs[position // 2] & 0x0F
            changes[position] = attrs.evolve(changes[position], by=names[index])
    return Changes(tuple(changes), complete=not body[0] & _INCOMPLETE)


def _inflate(packed: bytes) -> list[str]:
    if not packed:
        return []
    inflate = zlib.decompressobj(-15, zdict=_DEFLATE_DICTIONARY)
    return inflate.decompress(packed, _MAX_INFLATED).decode("utf-8", "surrogatepass").split("\n")


def _microseconds(moment: dt.datetime) -> int:
    return max(0, (moment - _EPOCH) // dt.timedelta(microseconds=1))


def _encode_number(value: int) -> bytes:
    """Encode a number in groups of seven bits, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_byte(cursor: Iterator[int]) -> int:
    if (value := next(cursor, None)) is None:
        raise ValueError("The history ends early.")
    return value


def _read_number(cursor: Iterator[int]) -> int:
    value = shift = 0
    while True:
        byte = _read_byte(cursor)
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:  # noqa: PLR2004  # likewise
            return value
        shift += 7


def _digest_of(body: Iterable[int]) -> bytes:
    return hashlib.sha256(bytes(body)).digest()[:_DIGEST_SIZE]
