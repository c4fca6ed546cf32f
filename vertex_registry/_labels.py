"""Metadata in labels, losslessly.

A value becomes a label as it is, escaped, or packed with others over several labels, whichever fits first. Our own
labels (the stage, a version's name) are next to the metadata, under keys that metadata can't take. Anybody can write
labels, so reading is linear, and no labels make it fail. docs/architecture.md and docs/metadata.md explain the format.
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

import attrs

from vertex_registry._quoting import quote, shorten
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# Vertex's own words: "There can be no more than 64 labels attached to a single resource. Label keys and values can only
# contain lowercase letters, numbers, dashes and underscores. Label keys must start with a letter or number, must be
# less than 64 characters in length, and must be less that 128 bytes in length when encoded in UTF-8."
MAX_LABELS: Final = 64
MAX_CHARACTERS: Final = 63

#: How deep metadata may be nested, itself included. So whatever can be written can be read, from any stack.
MAX_DEPTH: Final = 100

#: How many bytes of JSON a pack holds. Without a limit, 60 labels could inflate to 2 MB, and to 50 MB of objects.
MAX_PACKED: Final = 64 * 1024

#: The file next to the artifact with metadata that doesn't fit into labels, its label's value, and its largest size.
FILE_NAME: Final = "vertex-registry-metadata.json"
FILE_LABEL: Final = "json"
MAX_FILE: Final = 16 * 2**20

MANAGED_BY: Final = "managed_by"
VERSION_NAME: Final = "vr-version-name"
REQUEST: Final = "vr-request"
METADATA_FILE: Final = "vr-metadata-file"  # whether more metadata is in a file next to the artifact

#: The keys of this package's own labels. ``_stages`` explains those of the stage.
OWN_KEYS: Final = frozenset(
    {
        MANAGED_BY,
        VERSION_NAME,
        REQUEST,
        METADATA_FILE,
        "stage",
        "vr-stage-changed-at",
        "vr-stage-changed-by",
        "vr-stage-history",
        "vr-stage-history-more",
    }
)

_ESCAPE_PREFIX: Final = "_j_"
_LEGAL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_LEGAL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}", re.ASCII)
_UNESCAPED: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
# No letter is escaped that needn't be, so there's one way to write a text.
_ESCAPED_TEXT: Final = re.compile(r"(?:[a-z0-9-]|_(?!2d|3[0-9]|6[1-9a-f]|7[0-9a])[0-9a-f]{2})*", re.ASCII)
# What JSON has in most labels: a number without an exponent, as it's escaped, and a string that reads as it's written.
_ESCAPED_NUMBER: Final = re.compile(r"-?[0-9]+(_2e[0-9]+)?", re.ASCII)
_PLAIN_STRING: Final = re.compile(r'"[^"\\\x00-\x1f]*"')
_PACK_PREFIX: Final = "vr-pack-"
_PART_KEY: Final = re.compile(r"vr-pack-([1-9][0-9]?)-(0|[1-9][0-9]?)", re.ASCII)
# The parts of a JSON text that decide how deep it is. No match can fail halfway, so a search is linear.
_NESTING_TOKEN: Final = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_DIGEST_SIZE: Final = 8
_TRY_EACH_COUNT: Final = 256
_PART_SIZE: Final = MAX_CHARACTERS - _DIGEST_SIZE


@attrs.frozen
class Content:
    """What the labels of a version hold.

    Attributes:
        metadata: The version's metadata, including labels that other tools wrote.
        own_labels: The texts of this package's own labels, by key.
    """

    metadata: dict[str, Any]
    own_labels: dict[str, str]


def read(labels: Mapping[str, str]) -> Content:
    """Return what the labels hold, with the keys in order. No labels make it fail."""
    metadata: dict[str, Any] = {}
    own_labels: dict[str, str] = {}
    parts: dict[str, str] = {}
    for key, value in sorted(labels.items()):
        if key in OWN_KEYS:
            text = _unescape(value)
            own_labels[key] = text if isinstance(text, str) else value
        elif key.startswith(_PACK_PREFIX) and _PART_KEY.fullmatch(key):
            parts[key] = value
        else:
            metadata[key] = _unescape(value)
    if not parts:
        return Content(metadata=metadata, own_labels=own_labels)
    packed = _unpack(parts)
    own_labels.update(packed.own_labels)
    if not packed.parts:  # parts of an incomplete pack are somebody else's labels
        metadata |= {key: _unescape(value) for key, value in parts.items()}
    merged = {**metadata, **packed.metadata}
    return Content(metadata=dict(sorted(merged.items(), key=itemgetter(0))), own_labels=own_labels)


def write(
    labels: Mapping[str, str],
    *,
    metadata: Mapping[str, Any] | None = None,
    remove: Iterable[str] = (),
    own_labels: Mapping[str, str | None] | None = None,
    always_packed: Collection[str] = (),
    reserve: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """Return the labels with a change merged in; everything that the change doesn't name stays as it is.

    Args:
        labels: The labels as they are.
        metadata: Metadata to set.
        remove: Metadata keys to remove.
        own_labels: Own labels to set; None removes one.
        always_packed: Keys whose metadata is packed, even if it fits into a label.
        reserve: Own labels that will have to fit later. If possible, metadata is packed to leave space for them;
            `check_fits` checks whether it was.

    Raises:
        InvalidArgumentError: The metadata isn't a JSON object, or is too large for the labels.
    """
    metadata = check_metadata(metadata or {})
    own_labels = dict(own_labels or {})
    packed = _unpack(labels)
    named = {*metadata, *remove}
    renewed = (named - OWN_KEYS) | own_labels.keys()
    kept = {key: value for key, value in labels.items() if key not in renewed and not _PART_KEY.fullmatch(key)}
    if not packed.parts:  # parts of an incomplete pack are somebody else's labels
        kept |= {key: value for key, value in labels.items() if _PART_KEY.fullmatch(key)}
    large = {key: value for key, value in packed.metadata.items() if key not in named}
    large_own = {key: value for key, value in packed.own_labels.items() if key not in own_labels}

    for key, text in own_labels.items():
        if text is None:
            continue
        if (label := to_label(text)) is None:
            large_own[key] = text
        else:
            kept[key] = label
    flat = set()
    for key, value in metadata.items():
        if (label := to_label(value)) is None or not is_metadata_key(key) or key in always_packed:
            large[key] = value
        else:
            kept[key] = label
            flat.add(key)

    kept, large = _pack_as_few_as_possible(kept, large, large_own, flat, reserve or {})
    parts = _pack(large, large_own)
    _check_count(kept, parts, large)
    return {**kept, **parts}


def check_fits(labels: Mapping[str, str], own_labels: Mapping[str, str | None]) -> None:
    """Check that own labels fit next to the labels, so they can be written later.

    Raises:
        InvalidArgumentError: There isn't enough space.
    """
    try:
        write(labels, own_labels=own_labels)
    except InvalidArgumentError as full:
        raise InvalidArgumentError(f"There has to be space for a change of stage. With it: {full}") from None


def inheritable_keys(labels: Mapping[str, str]) -> set[str]:
    """Return the metadata keys whose labels may belong to the model, because a read shows both layers as one."""
    return {key for key in labels if key not in OWN_KEYS and not _PART_KEY.fullmatch(key)}


def pack_keys(labels: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Return the labels with the metadata under these keys packed. They hold the same, without labels of those keys.

    Raises:
        InvalidArgumentError: They don't fit when packed.
    """
    content = read(labels).metadata
    moved = {key: content[key] for key in keys}
    return write(labels, metadata=moved, always_packed=moved)


def json_equal(value: Any, wanted: Any) -> bool:
    """Return whether two JSON values are equal. Unlike in Python, True isn't 1."""
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(json_equal, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(json_equal(value[key], wanted[key]) for key in value)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Check metadata and return a copy of it.

    Raises:
        InvalidArgumentError: It isn't a JSON object: it contains NaN, a tuple, a key that isn't a string, or something
            else that JSON doesn't have. Or it's nested too deeply. The message says where.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError(f"metadata is a {type(metadata).__name__}, but it has to be a dict.")
    _check_json(dict(metadata), "metadata", MAX_DEPTH)
    return dict(json.loads(json.dumps(dict(metadata), ensure_ascii=False)))


def to_file(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as the content of its file. The same metadata is the same content.

    Raises:
        InvalidArgumentError: It's too large.
    """
    ordered = dict(sorted(metadata.items(), key=itemgetter(0)))
    content = json.dumps(ordered, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")
    if len(content) > MAX_FILE:
        raise InvalidArgumentError(
            f"file_metadata is {len(content):,} bytes of JSON, and {MAX_FILE:,} are allowed. Keep larger data in a "
            "file of your own next to the artifact."
        )
    return content


def from_file(content: bytes) -> dict[str, Any]:
    """Return the metadata in a file.

    Raises:
        ValueError: The file doesn't hold a JSON object.
    """
    try:
        metadata = _DECODER.decode(content.decode("utf-8", "surrogatepass"))
    except RecursionError:
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError  # noqa: TRY004  # as the decoder has it
    return metadata


def check_label(key: str, value: str) -> None:
    """Check a label that is written as it is.

    Raises:
        InvalidArgumentError: Vertex doesn't allow the key or the value, or the key is reserved.
    """
    legal = (
        isinstance(key, str) and isinstance(value, str) and _LEGAL_KEY.fullmatch(key) and _LEGAL_VALUE.fullmatch(value)
    )
    if not legal:
        raise InvalidArgumentError(
            f"Vertex doesn't allow the label {quote(key)}. Use at most {MAX_CHARACTERS} lower-case letters, digits, "
            "dashes and underscores for the key and the value, and begin the key with a letter."
        )
    if not is_metadata_key(key):
        raise InvalidArgumentError(
            f"The label key {quote(key)} is reserved for this package or for Google. Use another one."
        )


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Check that labels are a mapping and return a copy.

    Raises:
        InvalidArgumentError: They aren't a mapping.
    """
    if not isinstance(labels, Mapping):
        raise InvalidArgumentError(f"labels is a {type(labels).__name__}, but it has to be a dict of strings.")
    return dict(labels)


def check_managed_by(value: str) -> str:
    """Check the value of the label ``managed_by`` and return it.

    Raises:
        InvalidArgumentError: It can't be the value of a label.
    """
    if not isinstance(value, str) or not value or not _LEGAL_VALUE.fullmatch(value):
        raise InvalidArgumentError(
            f"managed_by={quote(value)} can't be a label. Use 1 to {MAX_CHARACTERS} lower-case letters, digits, dashes "
            "and underscores."
        )
    return value


def is_metadata_key(key: str) -> bool:
    """Return whether a metadata key can be the key of a label."""
    return bool(_LEGAL_KEY.fullmatch(key)) and key not in OWN_KEYS and not key.startswith(("vr-", "goog"))


def _check_json(value: object, where: str, depth: int) -> None:  # noqa: C901  # one branch for each kind of JSON value
    if isinstance(value, (dict, list)) and depth == 0:
        raise InvalidArgumentError(
            f"The metadata is nested more than {MAX_DEPTH} levels deep, or contains itself, at "
            f"{where[:MAX_CHARACTERS]}... Keep deeper data in a file next to the artifact."
        )
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArgumentError(f"{shorten(where)} has the key {quote(key)}, but JSON keys are strings.")
            _check_json(item, f"{where}[{key!r}]", depth - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]", depth - 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgumentError(f"{shorten(where)} isn't a finite number. JSON has neither NaN nor infinity.")
    elif isinstance(value, int):
        _check_digits(value, where)
    elif value is not None and not isinstance(value, str):
        raise InvalidArgumentError(f"{shorten(where)} is a {_kind(value)}, which JSON doesn't have. {_instead(value)}")


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _instead(value: object) -> str:
    """Return what to do with a value that JSON doesn't have."""
    if isinstance(value, (tuple, set, frozenset)):
        return "Pass list(...) of it."
    for method in ("tolist", "isoformat"):  # what NumPy's numbers and arrays have, and times
        if callable(getattr(value, method, None)):
            return f"Pass {method}() of it."
    return "Use strings, numbers, True, False, None, lists and dicts."


def _check_digits(value: int, where: str) -> None:
    try:
        int.__repr__(value)
    except ValueError:  # "Exceeds the limit (4300 digits) for integer string conversion"
        raise InvalidArgumentError(
            f"{shorten(where)} is a number with too many digits. Store it as a string."
        ) from None


def to_label(value: object) -> str | None:
    """Return a value as the text of one label, as it is or escaped; None if one label can't hold it, so it's packed."""
    if isinstance(value, str) and _LEGAL_VALUE.fullmatch(value) and not value.startswith(_ESCAPE_PREFIX):
        return value
    escaped = _escape(value)
    return escaped if len(escaped) <= MAX_CHARACTERS else None


def _to_json(value: object) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def _escape(value: object) -> str:
    return _ESCAPE_PREFIX + "".join(map(_ESCAPES.__getitem__, _to_json(value)))


def _unescape(label: str) -> Any:
    """Return the value that was escaped, or the label itself if this package didn't escape it."""
    if not label.startswith(_ESCAPE_PREFIX) or len(label) > MAX_CHARACTERS:
        return label
    body = label[len(_ESCAPE_PREFIX) :]
    if number := _ESCAPED_NUMBER.fullmatch(body):
        text = body.replace("_2e", ".")
        value: Any = float(text) if number[1] else int(text)
        return value if repr(value) == text else label
    if not _ESCAPED_TEXT.fullmatch(body):
        return label
    try:
        # A body has no backslash of its own, so this decodes its bytes and nothing else.
        raw = body.replace("_", "\\x").encode("ascii").decode("unicode_escape").encode("latin-1")
        text = raw.decode("utf-8", "surrogatepass")
        if _PLAIN_STRING.fullmatch(text):
            return text[1:-1]
        value = _DECODER.decode(text)
        return value if _to_json(value) == raw else label
    except ValueError:
        return label


def _parse_finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


def _reject_constant(constant: str) -> float:
    """Reject NaN and Infinity, which Python reads and JSON doesn't have."""
    raise ValueError(constant)


_ESCAPES: Final = tuple(chr(byte) if chr(byte) in _UNESCAPED else f"_{byte:02x}" for byte in range(256))
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_float=_parse_finite, parse_constant=_reject_constant)


@attrs.frozen
class _Packed:
    metadata: dict[str, Any]
    own_labels: dict[str, str]
    parts: frozenset[str]


_EMPTY_PACK: Final = _Packed({}, {}, frozenset())


def _pack_as_few_as_possible(
    kept: dict[str, str],
    large: dict[str, Any],
    large_own: Mapping[str, str],
    named: Collection[str],
    reserve: Mapping[str, str | None],
) -> tuple[dict[str, str], dict[str, Any]]:
    """Move values from labels of their own into the pack, as few as necessary.

    Labels that this write doesn't name may be another tool's. Only escaped ones, which this package wrote, are moved,
    and only after the named ones.
    """
    if _fits(kept, large, large_own, reserve):
        return kept, large
    escaped = {
        key for key in kept if key not in OWN_KEYS and is_metadata_key(key) and _unescape(kept[key]) != kept[key]
    }
    movable = sorted({*named, *escaped}, key=lambda key: (len(key) + len(kept[key]), key))
    # Plain texts stay readable for as long as possible; if that isn't enough, the smallest values go first, because a
    # value of many random letters takes more space in a pack than by itself.
    by_kind = sorted(movable, key=lambda key: (key not in named, key not in escaped))
    fewest = max(1, len(kept) + 1 - MAX_LABELS)
    for order in (by_kind, movable):
        if sum(len(key) + len('"":0,') for key in order[:fewest]) > MAX_PACKED:
            break
        # With hundreds of values, speed matters more than which few of them keep a label.
        step = 1 if fewest <= _TRY_EACH_COUNT else 16
        for count in sorted({*range(fewest, len(order) + 1, step), len(order)}):
            if count < fewest:
                break
            moved = {key: _unescape(kept[key]) for key in order[:count]}
            rest = {key: label for key, label in kept.items() if key not in moved}
            if _fits(rest, large | moved, large_own, reserve):
                return rest, large | moved
    return _pack_as_few_as_possible(kept, large, large_own, named, {}) if reserve else (kept, large)


def _fits(
    kept: Mapping[str, str], large: Mapping[str, Any], large_own: Mapping[str, str], reserve: Mapping[str, str | None]
) -> bool:
    """Return whether everything fits, together with the own labels that space is reserved for."""
    later = {key: (text, to_label(text)) for key, text in reserve.items() if text is not None}
    own = {key for key, (_, label) in later.items() if label is not None}
    packed = {key: text for key, (text, label) in later.items() if label is None}
    own_labels = {key: text for key, text in large_own.items() if key not in own} | packed
    try:
        return len(kept.keys() - packed.keys() | own) + len(_pack(large, own_labels)) <= MAX_LABELS
    except InvalidArgumentError:
        return False


def _pack(metadata: Mapping[str, Any], own_labels: Mapping[str, str]) -> dict[str, str]:
    if not metadata and not own_labels:
        return {}
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    document = _to_json([metadata, own_labels])
    if len(document) > MAX_PACKED:
        raise InvalidArgumentError(
            f"The metadata that doesn't fit into labels of its own has {len(document):,} bytes as JSON, and at most "
            f"{MAX_PACKED:,} fit. Keep large metadata in a file next to the artifact."
        )
    blob = deflate.compress(document) + deflate.flush()
    text = base64.b32encode(blob).decode().rstrip("=").lower()
    chunks = [text[start : start + _PART_SIZE] for start in range(0, len(text), _PART_SIZE)]
    digest = _digest_of(blob)
    return {f"{_PACK_PREFIX}{len(chunks)}-{index}": digest + chunk for index, chunk in enumerate(chunks)}


def _unpack(labels: Mapping[str, str]) -> _Packed:
    """Return what was packed, or nothing if parts are missing or changed."""
    found = [match[1] for key in labels if key.startswith(_PACK_PREFIX) and (match := _PART_KEY.fullmatch(key))]
    for size in sorted({int(number) for number in found}, reverse=True):
        keys = [f"{_PACK_PREFIX}{size}-{index}" for index in range(size)]
        values = [labels[key] for key in keys if key in labels]
        if len(values) < size or any(len(value) > MAX_CHARACTERS for value in values):
            continue
        text = "".join(value[_DIGEST_SIZE:] for value in values).upper()
        try:
            blob = base64.b32decode(text + "=" * (-len(text) % 8))
            digest = _digest_of(blob)
            if any(value[:_DIGEST_SIZE] != digest for value in values):
                continue
            metadata, own_labels = _DECODER.decode(_inflate(blob))
            if not all(key in OWN_KEYS and isinstance(text, str) for key, text in own_labels.items()):
                continue  # this package doesn't write such a pack
            return _Packed(dict(metadata), dict(own_labels), frozenset(keys))
        except (binascii.Error, zlib.error, ValueError, TypeError, AttributeError):
            continue
    return _EMPTY_PACK


def _inflate(blob: bytes) -> str:
    """Return the JSON text in a pack.

    Raises:
        ValueError: It's too long, nested too deeply, or incomplete, so this package didn't write it.
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
    """Return how deep lists and dicts are nested in a JSON text, without recursion."""
    deepest = depth = 0
    inside = False
    for mark in _NESTING_TOKEN.findall(document):
        if mark == '"':
            inside = not inside
        elif not inside and mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not inside and mark in "]}":
            depth -= 1
    return deepest


def _digest_of(blob: bytes) -> str:
    return base64.b32encode(hashlib.sha256(blob).digest()).decode().lower()[:_DIGEST_SIZE]


def _check_count(kept: Mapping[str, str], parts: Mapping[str, str], large: Mapping[str, Any]) -> None:
    total = len(kept) + len(parts)
    if total <= MAX_LABELS:
        return
    ours = len(kept.keys() & OWN_KEYS)
    keys = sorted(large, key=lambda key: -len(_to_json(large[key])))
    largest = ", ".join(repr(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")  # noqa: PLR2004
    raise InvalidArgumentError(
        f"The version would have {total} labels, and Vertex allows {MAX_LABELS}: {ours} of this package, "
        f"{len(kept) - ours} with a value each, and {len(parts)} for larger metadata"
        + (f" ({largest})" if large else "")
        + ". Keep large metadata in a file next to the artifact."
    )
