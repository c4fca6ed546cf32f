r"""Metadata in labels, losslessly.

Vertex keeps nothing with a version but labels: 64 of them, whose keys and values have at most 63 lower-case letters,
digits, dashes and underscores. Metadata is any JSON object. It goes into labels in three ways, the first that fits:

* **as itself**: a string that is a legal label value, under a key that is a legal label key and nobody's. ``team:
  "growth"`` is the label ``team=growth``, to be read and filtered in the console.
* **escaped**: any other value that is short, under such a key. Its JSON text follows the mark ``_j_``, with every
  character that a label may not hold written as ``_`` and two hexadecimal digits a byte: ``accuracy: 0.93`` is the
  label ``accuracy=_j_0_2e93``. A string that begins with the mark is escaped too, so that reading is never in doubt.
* **packed**: all the rest, together: one JSON document, deflated, in base32, cut over the labels ``vr-pack-N-0`` to
  ``vr-pack-N-(N-1)``. Each part begins with a digest of the whole. Vertex merges a model's labels into its versions',
  and a part that was left there by something else is noticed, because its digest is another.

Each value has a label of its own as long as there's room for all of them. When there isn't, as many as necessary are
packed, numbers and other escaped values first.

Anybody can write labels, so reading is linear in what it reads, and a pack of more than ``MAX_PACKED`` bytes is neither
written nor read: its parts are plain labels then.

Labels that others wrote are metadata as well, and read back as what they are. An update leaves the label of every key
that it does not name as it stands, letter for letter. Our own texts (*notes*: the stage, a version's name) lie beside
the metadata under keys that metadata cannot take, and are escaped and packed in the same way.

Metadata is nested ``MAX_DEPTH`` deep at most, so that who can write it can read it, from however deep a stack.

Not handled: a label of somebody else's that begins with our mark and happens to be canonical JSON reads as that JSON.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import attrs

from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# "There can be no more than 64 labels attached to a single resource. Label keys and values can only contain lowercase
# letters, numbers, dashes and underscores. Label keys must start with a letter or number, must be less than 64
# characters in length, and must be less that 128 bytes in length when encoded in UTF-8." (the validator's own words)
MAX_LABELS: Final = 64
MAX_CHARACTERS: Final = 63

#: How deep lists and dicts may lie in each other, the metadata itself included.
MAX_DEPTH: Final = 100

#: How many bytes of JSON a pack holds. Deflate can make 2 MB of 60 labels, and Python 50 MB of that.
MAX_PACKED: Final = 64 * 1024

MANAGED_BY: Final = "managed_by"
VERSION_NAME: Final = "vr-version-name"
REQUEST: Final = "vr-request"

#: The keys that belong to us; ``stage`` and its stamps are explained in ``_stages``.
NOTES: Final = frozenset(
    {
        MANAGED_BY,
        VERSION_NAME,
        REQUEST,
        "stage",
        "vr-stage-changed-at",
        "vr-stage-changed-by",
        "vr-stage-history",
        "vr-stage-history-more",
    }
)

_MARK: Final = "_j_"
_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}", re.ASCII)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_ESCAPED: Final = re.compile(r"(?:[a-z0-9-]|_[0-9a-f]{2})*", re.ASCII)
_PACK: Final = "vr-pack-"
_PART_KEY: Final = re.compile(r"vr-pack-([1-9][0-9]?)-(0|[1-9][0-9]?)", re.ASCII)
# What decides how deep a JSON text is. No match can fail halfway, so a search is linear.
_TOKEN: Final = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_DIGEST: Final = 8
_MANY: Final = 256
_PART: Final = MAX_CHARACTERS - _DIGEST


@attrs.frozen
class Content:
    """What the labels of a version say.

    Attributes:
        metadata: The JSON object that is the version's metadata, others' labels included.
        notes: Our own texts, by the key they lie under.
    """

    metadata: dict[str, Any]
    notes: dict[str, str]


def read(labels: Mapping[str, str]) -> Content:
    """Return what the labels say, with the keys in order. There are no labels that this fails on."""
    packed = _unpack(labels)
    metadata: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for key, value in sorted(labels.items()):
        if key in NOTES:
            text = _unescape(value)
            notes[key] = text if isinstance(text, str) else value
        elif not packed.parts or not _PART_KEY.fullmatch(key):
            metadata[key] = _unescape(value) if value.startswith(_MARK) else value
    notes.update(packed.notes)
    if packed.metadata:
        metadata = dict(sorted({**metadata, **packed.metadata}.items(), key=itemgetter(0)))
    return Content(metadata=metadata, notes=notes)


def write(
    labels: Mapping[str, str],
    *,
    metadata: Mapping[str, Any] | None = None,
    remove: Iterable[str] = (),
    notes: Mapping[str, str | None] | None = None,
    free: Collection[str] = (),
    room: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """Return the labels with a change merged in; everything that the change doesn't name stays as it is.

    Args:
        labels: The labels as they are.
        metadata: Metadata to set.
        remove: Keys of metadata to take out.
        notes: Notes to set; None takes a note out.
        free: Keys whose metadata is packed, whatever it is.
        room: Notes that have to fit later. Metadata is packed to keep that room if that's possible. `check_room` says
            whether it was.

    Raises:
        InvalidArgumentError: The metadata is not a JSON object, or is larger than Vertex's labels.
    """
    metadata = check_metadata(metadata or {})
    notes = dict(notes or {})
    packed = _unpack(labels)
    named = {*metadata, *remove}
    renewed = (named - NOTES) | notes.keys()
    kept = {key: value for key, value in labels.items() if key not in renewed and not _PART_KEY.fullmatch(key)}
    if not packed.parts:  # parts that make no whole are somebody else's labels
        kept |= {key: value for key, value in labels.items() if _PART_KEY.fullmatch(key)}
    large = {key: value for key, value in packed.metadata.items() if key not in named}
    large_notes = {key: value for key, value in packed.notes.items() if key not in notes}

    for key, text in notes.items():
        if text is None:
            continue
        if (label := _label(text)) is None:
            large_notes[key] = text
        else:
            kept[key] = label
    flat = set()
    for key, value in metadata.items():
        if (label := _label(value)) is None or not is_free_key(key) or key in free:
            large[key] = value
        else:
            kept[key] = label
            flat.add(key)

    kept, large = _spread(kept, large, large_notes, flat, room or {})
    parts = _pack(large, large_notes)
    _check_budget(kept, parts, large)
    return {**kept, **parts}


def check_room(labels: Mapping[str, str], notes: Mapping[str, str | None]) -> None:
    """Let there be room for these notes beside the labels, so that they can be written later.

    Raises:
        InvalidArgumentError: There is too little.
    """
    try:
        write(labels, notes=notes)
    except InvalidArgumentError as full:
        raise InvalidArgumentError(f"A change of stage has to fit as well, now or later. With it: {full}") from None


def layered_keys(labels: Mapping[str, str]) -> set[str]:
    """The keys of metadata that may as well be labels of the model that a version is one of."""
    return {key for key in labels if key not in NOTES and not _PART_KEY.fullmatch(key)}


def freed(labels: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """The labels with the metadata under these keys packed: they read the same, and none lies under its own key.

    Raises:
        InvalidArgumentError: They do not fit so.
    """
    content = read(labels).metadata
    moved = {key: content[key] for key in keys}
    return write(labels, metadata=moved, free=moved)


def same(value: Any, wanted: Any) -> bool:
    """Whether two values of JSON are equal; True is not 1 there."""
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(same, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(same(value[key], wanted[key]) for key in value)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata as a dict of its own.

    Raises:
        InvalidArgumentError: It is no JSON object: it holds NaN, a tuple, a key that is not a string, or anything else
            that JSON does not have; or it is nested too deeply. The message says where.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError(f"The metadata is a {type(metadata).__name__}; it has to be a dict.")
    _check_json(dict(metadata), "metadata", MAX_DEPTH)
    return dict(json.loads(json.dumps(dict(metadata), ensure_ascii=False)))


def check_label(key: str, value: str) -> None:
    """A label that is to be written as it stands.

    Raises:
        InvalidArgumentError: Vertex allows no such key or value, or the key is one of ours.
    """
    if not isinstance(key, str) or not isinstance(value, str) or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
        raise InvalidArgumentError(
            f"The label {key!r} is not one that Vertex allows: key and value have at most {MAX_CHARACTERS} lower-case "
            "letters, digits, dashes and underscores, and a key begins with a letter."
        )
    if not is_free_key(key):
        raise InvalidArgumentError(f"The label {key!r} is not free: its key is kept for this package or for Google.")


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels as a dict of its own.

    Raises:
        InvalidArgumentError: They are no mapping.
    """
    if not isinstance(labels, Mapping):
        raise InvalidArgumentError(f"The labels are a {type(labels).__name__}; they have to be a dict of strings.")
    return dict(labels)


def check_managed_by(value: str) -> str:
    """The value of the label ``managed_by``.

    Raises:
        InvalidArgumentError: It is no label value.
    """
    if not isinstance(value, str) or not value or not _VALUE.fullmatch(value):
        raise InvalidArgumentError(
            f"managed_by={value!r} is no label value: 1 to {MAX_CHARACTERS} lower-case letters, digits, dashes and "
            "underscores."
        )
    return value


def is_free_key(key: str) -> bool:
    """Whether metadata can lie under that key as it is."""
    return bool(_KEY.fullmatch(key)) and key not in NOTES and not key.startswith(("vr-", "goog"))


def _check_json(value: object, where: str, depth: int) -> None:  # noqa: C901  # the kinds of JSON stand side by side
    if isinstance(value, (dict, list)) and depth == 0:
        raise InvalidArgumentError(
            f"The metadata is nested more than {MAX_DEPTH} deep, or holds itself: {where[:MAX_CHARACTERS]}... "
            "Keep what lies deeper in a file beside the artifact."
        )
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArgumentError(f"{where} has the key {key!r}; the keys of JSON are strings.")
            _check_json(item, f"{where}[{key!r}]", depth - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]", depth - 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgumentError(f"{where} is not a finite number, and JSON has no other.")
    elif isinstance(value, int):
        _check_digits(value, where)
    elif value is not None and not isinstance(value, str):
        raise InvalidArgumentError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which JSON does not have. "
            "JSON has strings, numbers, True, False, None, lists and dicts."
        )


def _check_digits(value: int, where: str) -> None:
    try:
        int.__repr__(value)
    except ValueError:  # "Exceeds the limit (4300 digits) for integer string conversion"
        raise InvalidArgumentError(f"{where} is a number with too many digits.") from None


def _label(value: object) -> str | None:
    """The value in one label, as itself or escaped; None where one label cannot hold it."""
    if isinstance(value, str) and _VALUE.fullmatch(value) and not value.startswith(_MARK):
        return value
    escaped = _escape(value)
    return escaped if len(escaped) <= MAX_CHARACTERS else None


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def _escape(value: object) -> str:
    return _MARK + "".join(map(_LETTERS.__getitem__, _json(value)))


def _unescape(label: str) -> Any:
    """Return the value that was escaped, or the label itself if it isn't one of ours."""
    body = label.removeprefix(_MARK)
    if len(label) > MAX_CHARACTERS or not label.startswith(_MARK) or not _ESCAPED.fullmatch(body):
        return label
    try:
        raw = unquote_to_bytes(body.replace("_", "%"))
        value = _DECODER.decode(raw.decode("utf-8", "surrogatepass"))
        return value if _escape(value) == label else label
    except ValueError:
        return label


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


def _refuse(constant: str) -> float:
    """Refuse NaN and Infinity, which Python reads and JSON doesn't have."""
    raise ValueError(constant)


_LETTERS: Final = tuple(chr(byte) if chr(byte) in _PLAIN else f"_{byte:02x}" for byte in range(256))
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)


@attrs.frozen
class _Packed:
    metadata: dict[str, Any]
    notes: dict[str, str]
    parts: frozenset[str]


_NOTHING: Final = _Packed({}, {}, frozenset())


def _spread(
    kept: dict[str, str],
    large: dict[str, Any],
    large_notes: Mapping[str, str],
    named: Collection[str],
    room: Mapping[str, str | None],
) -> tuple[dict[str, str], dict[str, Any]]:
    """Move as few values as necessary from labels of their own into the pack.

    Labels that aren't named in this write may be somebody else's, which other tools look for. Of these, only escaped
    ones are moved, which must be ours, and they are moved last.
    """
    if _fits(kept, large, large_notes, room):
        return kept, large
    escaped = {key for key in kept if key not in NOTES and is_free_key(key) and _unescape(kept[key]) != kept[key]}
    movable = sorted({*named, *escaped}, key=lambda key: (len(key) + len(kept[key]), key))
    # Plain texts stay readable for as long as possible; if that isn't enough, the smallest values go first, because a
    # value of many random letters takes more room in a pack than by itself.
    by_kind = sorted(movable, key=lambda key: (key not in named, key not in escaped))
    fewest = max(1, len(kept) + 1 - MAX_LABELS)
    for order in (by_kind, movable):
        if sum(len(key) + len('"":0,') for key in order[:fewest]) > MAX_PACKED:
            break
        # Which few of several hundred values keep a label matters less than the time that it takes.
        step = 1 if fewest <= _MANY else 16
        for count in sorted({*range(fewest, len(order) + 1, step), len(order)}):
            if count < fewest:
                break
            moved = {key: _unescape(kept[key]) for key in order[:count]}
            rest = {key: label for key, label in kept.items() if key not in moved}
            if _fits(rest, large | moved, large_notes, room):
                return rest, large | moved
    return _spread(kept, large, large_notes, named, {}) if room else (kept, large)


def _fits(
    kept: Mapping[str, str], large: Mapping[str, Any], large_notes: Mapping[str, str], room: Mapping[str, str | None]
) -> bool:
    """Whether all of it fits, and goes on fitting when the notes that there has to be room for are written."""
    later = {key: (text, _label(text)) for key, text in room.items() if text is not None}
    own = {key for key, (_, label) in later.items() if label is not None}
    packed = {key: text for key, (text, label) in later.items() if label is None}
    notes = {key: text for key, text in large_notes.items() if key not in own} | packed
    try:
        return len(kept.keys() - packed.keys() | own) + len(_pack(large, notes)) <= MAX_LABELS
    except InvalidArgumentError:
        return False


def _pack(metadata: Mapping[str, Any], notes: Mapping[str, str]) -> dict[str, str]:
    if not metadata and not notes:
        return {}
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    document = _json([metadata, notes])
    if len(document) > MAX_PACKED:
        raise InvalidArgumentError(
            f"The metadata that doesn't fit into labels of its own is {len(document):,} bytes of JSON; at most "
            f"{MAX_PACKED:,} are kept. Keep large metadata in a file beside the artifact."
        )
    blob = deflate.compress(document) + deflate.flush()
    text = base64.b32encode(blob).decode().rstrip("=").lower()
    chunks = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    digest = _pack_digest(blob)
    return {f"{_PACK}{len(chunks)}-{index}": digest + chunk for index, chunk in enumerate(chunks)}


def _unpack(labels: Mapping[str, str]) -> _Packed:
    """Return what was packed; nothing if the parts don't make a whole."""
    found = [match[1] for key in labels if key.startswith(_PACK) and (match := _PART_KEY.fullmatch(key))]
    for size in sorted({int(number) for number in found}, reverse=True):
        keys = [f"{_PACK}{size}-{index}" for index in range(size)]
        values = [labels[key] for key in keys if key in labels]
        if len(values) < size or any(len(value) > MAX_CHARACTERS for value in values):
            continue
        text = "".join(value[_DIGEST:] for value in values).upper()
        try:
            blob = base64.b32decode(text + "=" * (-len(text) % 8))
            digest = _pack_digest(blob)
            if any(value[:_DIGEST] != digest for value in values):
                continue
            metadata, notes = _DECODER.decode(_inflate(blob))
            if not all(key in NOTES and isinstance(text, str) for key, text in notes.items()):
                continue  # we write no such notes
            return _Packed(dict(metadata), dict(notes), frozenset(keys))
        except (binascii.Error, zlib.error, ValueError, TypeError, AttributeError):
            continue
    return _NOTHING


def _inflate(blob: bytes) -> str:
    """Return the JSON text in a pack.

    Raises:
        ValueError: It isn't one that this package writes: it is too long, too deep, or not the whole of it.
    """
    inflate = zlib.decompressobj(-15)
    raw = inflate.decompress(blob, MAX_PACKED + 1)
    if len(raw) > MAX_PACKED or not inflate.eof:
        raise ValueError("a pack is too long, or isn't whole")
    document = raw.decode("utf-8", "surrogatepass")
    if _depth(document) > MAX_DEPTH + 1:
        raise ValueError("a pack is too deep")
    return document


def _depth(document: str) -> int:
    """Return how deep lists and dicts are nested in a JSON text, without going so deep."""
    deepest = depth = 0
    inside = False
    for mark in _TOKEN.findall(document):
        if mark == '"':
            inside = not inside
        elif not inside and mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not inside and mark in "]}":
            depth -= 1
    return deepest


def _pack_digest(blob: bytes) -> str:
    return base64.b32encode(hashlib.sha256(blob).digest()).decode().lower()[:_DIGEST]


def _check_budget(kept: Mapping[str, str], parts: Mapping[str, str], large: Mapping[str, Any]) -> None:
    total = len(kept) + len(parts)
    if total <= MAX_LABELS:
        return
    ours = len(kept.keys() & NOTES)
    keys = sorted(large, key=lambda key: -len(_json(large[key])))
    largest = ", ".join(repr(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")  # noqa: PLR2004
    raise InvalidArgumentError(
        f"The version would have {total} labels, and Vertex allows {MAX_LABELS}: {ours} of our own, {len(kept) - ours} "
        "more (metadata with a label each, and what the model itself or others have put there), and "
        f"{len(parts)} for what does not fit into one"
        + (f" (the largest: {largest})" if large else "")
        + ". Keep large metadata in a file beside the artifact."
    )
