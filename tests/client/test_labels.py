"""Metadata in labels: any JSON document, and nothing lost."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gc
import json
import re
import string
import zlib
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.behaviour.incompressible import incompressible
from vertex_registry import InvalidArgumentError, _labels

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # halves of surrogate pairs are JSON too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
LABEL_TEXT = st.text(string.ascii_lowercase + string.digits + "_-", max_size=63)
KEYS = TEXT | LABEL_TEXT | st.sampled_from([*_labels.OWN_KEYS, "vr-pack-1-0", "goog-x", "team"])
METADATA = st.dictionaries(KEYS, JSON | LABEL_TEXT | LABEL_TEXT.map(lambda text: "_j_" + text), max_size=8)
NOTES = st.dictionaries(st.sampled_from(sorted(_labels.OWN_KEYS)), st.text(max_size=40), max_size=6)
LEGAL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LEGAL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON documents are equal in value and in type."""
    return bool(one == other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def written(labels: dict[str, str], **changes: Any) -> dict[str, str]:
    """Return the labels with the changes, if they fit on a version."""
    try:
        return _labels.write(labels, **changes)
    except InvalidArgumentError as error:
        assume("and Vertex allows 64" not in str(error))
        raise


@given(METADATA, NOTES)
def test_whatever_fits_comes_back(metadata: dict[str, Any], notes: dict[str, str]) -> None:
    """Metadata and notes come back equal, in type and case, from labels that Vertex allows."""
    labels = written({}, metadata=metadata, own_labels=notes)
    content = _labels.read(labels)

    assert same(content.metadata, metadata)
    assert content.own_labels == notes
    assert all(LEGAL_KEY.fullmatch(key) and LEGAL_VALUE.fullmatch(value) for key, value in labels.items())
    assert len(labels) <= 64


@given(METADATA, METADATA, st.sets(KEYS, max_size=4), NOTES)
def test_updates_merge(before: dict[str, Any], update: dict[str, Any], remove: set[str], notes: dict[str, str]) -> None:
    """An update sets what it names, removes what it names, and keeps the rest, notes included."""
    labels = written(written({}, metadata=before, own_labels=notes), metadata=update, remove=remove)
    wanted = {key: value for key, value in before.items() if key not in remove} | update

    assert same(_labels.read(labels).metadata, wanted)
    assert _labels.read(labels).own_labels == notes


@given(
    st.dictionaries(
        st.sampled_from(sorted(_labels.OWN_KEYS)) | st.from_regex(r"vr-pack-[1-3]-[0-2]", fullmatch=True) | TEXT,
        TEXT | st.from_regex(r"_j_[a-z0-9_-]{0,20}", fullmatch=True),
        max_size=8,
    )
)
def test_no_labels_break_a_read(labels: dict[str, str]) -> None:
    """Any labels can be read, and an unrelated update leaves them unchanged."""
    content = _labels.read(labels)
    again = _labels.write(labels, metadata={"something-else-entirely": 1})

    assert labels.items() <= again.items()
    assert same(_labels.read(again).metadata, content.metadata | {"something-else-entirely": 1})


@given(LABEL_TEXT.filter(lambda text: not text.startswith("_j_")))
def test_label_safe_strings_are_stored_as_themselves(text: str) -> None:
    """A string that's a valid label value is stored as itself."""
    assert _labels.write({}, metadata={"team": text}) == {"team": text}


@given(st.integers(0, 40), st.data())
def test_a_stale_part_is_detected(size: int, data: st.DataObject) -> None:
    """If a part of packed metadata is from somewhere else, none of it is read as metadata."""
    texts = [f"Überraschung {number} in einem langen Satz" * 12 for number in (size, size + 1)]
    one, other = (dict(_labels.write({}, metadata={"Note": text}).items()) for text in texts)
    stale = data.draw(st.sampled_from(sorted(one.keys() & other.keys())))
    mixed = one | {stale: other[stale]}

    if mixed not in (one, other):
        assert "Note" not in _labels.read(mixed).metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {"noise": "".join(chr(0x4E00 + number * 7 % 20000) for number in range(3000))},
        incompressible(65),
        {f"Key {number}": f"value {number * number * 7919}" for number in range(2000)},
    ],
)
def test_what_does_not_fit_is_refused(metadata: dict[str, Any]) -> None:
    """The error for too much metadata shows the budget, but none of the values."""
    with pytest.raises(InvalidArgumentError, match="Vertex allows 64") as caught:
        _labels.write({}, metadata=metadata)
    assert not any(str(value) in str(caught.value) for value in metadata.values() if len(str(value)) > 1)


def test_deep_metadata() -> None:
    """Endlessly nested metadata is refused, and doesn't crash."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidArgumentError, match="nested"):
        _labels.write({}, metadata={"a": endless})
    with pytest.raises(InvalidArgumentError, match=r"metadata\['a'\] is a number with too many digits"):
        _labels.write({}, metadata={"a": 10**5000})


def nested(depth: int) -> dict[str, Any]:
    inner: Any = 'a "[{[" and a \\'
    for number in range(depth - 1):
        inner = {'"]': inner} if number % 2 else [inner, "]"]
    return {"a": inner}


def test_the_deepest_metadata() -> None:
    """Metadata that's nested 100 levels deep is read as it was written. One level more is refused."""
    deepest = nested(100)
    assert _labels.read(_labels.write({}, metadata=deepest)).metadata == deepest
    with pytest.raises(InvalidArgumentError, match="nested more than 100 levels deep"):
        _labels.write({}, metadata=nested(101))


@pytest.mark.unmeasured  # neither the counting nor a collection has room at the end of the stack
def test_a_read_from_a_deep_stack() -> None:
    """If the stack has no room left for a read, the error is a RecursionError, and never other content."""
    labels = _labels.write({}, metadata=nested(100))
    contents = []

    def read(depth: int) -> None:
        with contextlib.suppress(RecursionError):
            contents.append(_labels.read(labels).metadata)
            read(depth + 1)

    gc.disable()
    try:
        read(0)
    finally:
        gc.enable()
    assert len(contents) > 100
    assert all(content == nested(100) for content in contents)


def test_packs_that_are_too_deep() -> None:
    """A pack that's nested too deep for this package is read as foreign labels."""
    for depth in (101, 10_000):
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        document = '[{"a":' + "[" * (depth - 1) + "]" * (depth - 1) + "},{}]"
        blob = deflate.compress(document.encode()) + deflate.flush()
        text = base64.b32encode(blob).decode().rstrip("=").lower()
        chunks = [text[start : start + 55] for start in range(0, len(text), 55)]
        labels = {
            f"vr-pack-{len(chunks)}-{index}": _labels._digest_of(blob) + chunk for index, chunk in enumerate(chunks)
        }
        assert _labels.read(labels).metadata == labels


def test_the_documented_examples() -> None:
    """The labels of the examples in the docs are the labels that are written."""
    assert _labels.write({}, metadata={"team": "growth", "accuracy": 0.93}) == {
        "team": "growth",
        "accuracy": "_j_0_2e93",
    }


def test_packs_that_we_do_not_write() -> None:
    """A pack with contents that we never write is read as foreign labels."""
    for metadata, notes in (({}, {"stage": [1]}), ({}, {"vr-stage-changed-at": 7}), ({}, {"nobody": "x"})):
        labels = _labels._pack(metadata, notes)  # type: ignore[arg-type]  # that is the point
        assert _labels.read(labels).own_labels == {}
        assert _labels.read(labels).metadata == labels


def test_halves_of_surrogate_pairs() -> None:
    """Two halves of a pair stay two halves, and don't become the character that JSON's text would make of them."""
    metadata = {"a": "\ud83d\ude00", "b": "\ud83d"}
    assert _labels.read(_labels.write({}, metadata=metadata)).metadata == metadata


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (
            pd.Series([1.5], dtype="float32").iloc[0],
            "is a numpy.float32, which JSON doesn't have. Pass tolist() of it.",
        ),
        (pd.Series([1]).to_numpy(), "is a numpy.ndarray, which JSON doesn't have. Pass tolist() of it."),
        ((1, 2), "is a tuple, which JSON doesn't have. Pass list(...) of it."),
        (dt.date(2026, 1, 31), "is a datetime.date, which JSON doesn't have. Pass isoformat() of it."),
        (b"1", "is a bytes, which JSON doesn't have. Use strings, numbers"),
    ],
)
def test_what_to_pass_in_place_of_a_value(value: object, advice: str) -> None:
    """An error about a value that JSON doesn't have says how to convert it."""
    with pytest.raises(InvalidArgumentError, match=re.escape(f"metadata['key'] {advice}")):
        _labels.check_metadata({"key": value})
