"""Labels that are meant to do harm, and labels that an earlier release wrote."""

from __future__ import annotations

import base64
import contextlib
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.client.test_labels import JSON, LABEL_TEXT, NOTES, TEXT, same
from vertex_registry import InvalidArgumentError, _labels, _promotion


def pack(document: str) -> dict[str, str]:
    """Write a document into labels, in the form of this package's packs."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    blob = deflate.compress(document.encode()) + deflate.flush()
    text = base64.b32encode(blob).decode().rstrip("=").lower()
    chunks = [text[start : start + 55] for start in range(0, len(text), 55)]
    digest = _labels._digest_of(blob)
    return {f"vr-pack-{len(chunks)}-{index}": digest + chunk for index, chunk in enumerate(chunks)}


@pytest.mark.parametrize(
    "document",
    [
        '["' + '\\"' * 30_000,
        '"' + '\\"' * 30_000,
        '"\\' * 30_000,
        '"' * 60_000,
        "\\" * 60_000,
        '[{"a":"' + '\\"' * 30_000 + '"},{}',
        '[{"a":' + "9" * 60_000 + "},{}]",
        '[{"a":' + "-" * 60_000 + "},{}]",
        "[{" + '"":0,' * 10_000 + '"":0},{}]x',
        '["' + '\\"' * 1_000_000,
        "[" * 1_000_000,
        '["' + "\\u0000" * 300_000,
    ],
    ids=lambda document: document[:8] + f" {len(document)}",
)
def test_decoding_is_linear(document: str) -> None:
    """A foreign pack is read in milliseconds. If it isn't this package's, it's plain labels."""
    labels = pack(document)
    content = _labels.read(labels)

    assert content.metadata == labels


def test_a_pack_that_inflates_to_much_is_plain_labels() -> None:
    """Twenty versions whose labels would inflate to 2 MB each don't use more memory than the labels themselves."""
    bomb = pack('[{"a":[' + "[]," * 700_000 + "[]]},{}]")
    assert len(bomb) <= 64

    tracemalloc.start()
    try:
        contents = [_labels.read(bomb) for _ in range(20)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(content.metadata == bomb for content in contents)
    assert peak < 4_000_000


def test_the_longest_pack() -> None:
    """The longest allowed pack is written and read. One byte more is refused before anything is written."""
    longest = {"A b": "x" * (_labels.MAX_PACKED - len('[{"A b":""},{}]'))}
    assert _labels.read(_labels.write({}, metadata=longest)).metadata == longest
    with pytest.raises(InvalidArgumentError, match=r"65,537 bytes as JSON, and at most 65,536"):
        _labels.write({}, metadata={"A b": longest["A b"] + "x"})
    longer = pack('[{"A b":"' + longest["A b"] + 'x"},{}]')
    assert _labels.read(longer).metadata == longer


@pytest.mark.parametrize("document", ['[{"a":NaN},{}]', '[{"a":[1e999]},{}]', '[{"a":-Infinity},{}]', "[{},{}] "])
def test_numbers_that_json_does_not_have(document: str) -> None:
    """What isn't JSON isn't metadata, in a pack or escaped. A space at the end doesn't matter."""
    labels = pack(document)
    assert _labels.read(labels).metadata == ({} if document.endswith(" ") else labels)


@pytest.mark.parametrize("label", ["_j__4ea_4e", "_j__49nfinity", "_j_-_49nfinity", "_j_1e999"])
def test_escaped_numbers_that_json_does_not_have(label: str) -> None:
    """NaN and the infinities are read as strings."""
    assert _labels.read({"a": label}).metadata == {"a": label}


def test_more_parts_than_a_version_has_labels() -> None:
    """Endless parts, and parts longer than a label, are quickly read as plain labels."""
    labels = {f"vr-pack-{size}-{part}": "a" * 63 for size in range(1, 100) for part in range(size)}
    labels["vr-pack-1-0"] = "a" * 5_000_000
    content = _labels.read(labels)

    assert content.metadata == labels


@pytest.mark.parametrize("count", [200, 5_000, 14_000, 100_000])
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_an_update_beside_labels_without_end(count: int) -> None:
    """An update next to any number of labels quickly fits or is refused."""
    labels = {f"k{number}": f"_j_{number}" for number in range(count)}
    with contextlib.suppress(InvalidArgumentError):
        changed = _labels.write(labels, metadata={"a": 1}, reserve=_promotion.reserved_labels("zenml", None))
        assert _labels.read(changed).metadata == _labels.read(labels).metadata | {"a": 1}


def test_labels_of_an_earlier_release() -> None:
    """Metadata that an earlier release wrote reads as before, even if it's updated."""
    flat = {
        "stage": "production", "managed_by": "zenml", "team": "growth", "accuracy": "_j_0_2e93", "n": "_j_60",
        "none": "_j_null",
    }  # fmt: skip
    assert _labels.read(flat) == _labels.Content(
        metadata={"accuracy": 0.93, "n": 60, "none": None, "team": "growth"},
        own_labels={"stage": "production", "managed_by": "zenml"},
    )
    packed = {
        "stage": "staging",
        "features": "_j__5b_22age_22_2c_22plan_22_5d",
        "team": "growth",
        "vr-pack-6-0": "vyprlq4vdwgtc3qcieiajp6s3l4lbzgutfcujygeojtdtgddto5zlbszwq5qfhy",
        "vr-pack-6-1": "vyprlq4vqckh7a4447etx4cidmf32xor6z7u2gsjrm2gew6sjv5thr673kvsuwq",
        "vr-pack-6-2": "vyprlq4v3spz5zig2h5higuey3pqlegnkcmwsgeg3jv2nipybbtbvm3sauduqjm",
        "vr-pack-6-3": "vyprlq4vmkly5na5rkf7njry5uxrhy3qd3dxigoo5dmvmrvwl6vkytpx67uj2sx",
        "vr-pack-6-4": "vyprlq4vibtgxfshdyqz77lz74hsueg37aybfvr43s6dgcjineyuf43gcvy3pky",
        "vr-pack-6-5": "vyprlq4vs3uipfwfhj6n2ae",
    }
    metadata = {
        "Trained by": "Ann Müller",
        "features": ["age", "plan"],
        "stage": "mine",
        "team": "growth",
        "text": "It is longer than one label can hold, by a good deal, and has Capitals.",
    }
    notes = {
        "stage": "staging",
        "vr-version-name": "Release Candidate 1 — the one that everybody has been waiting for since spring",
    }
    assert _labels.read(packed) == _labels.Content(metadata=metadata, own_labels=notes)
    changed = _labels.write(packed, metadata={"n": 1}, own_labels={"stage": "archived"})
    assert _labels.read(changed) == _labels.Content(
        metadata=dict(sorted({**metadata, "n": 1}.items())), own_labels=notes | {"stage": "archived"}
    )


ROOM = _promotion.reserved_labels("zenml", None)
VALUES = JSON | LABEL_TEXT | st.integers(0, 10**12) | st.floats(0, 1)


def test_sixty_numbers() -> None:
    """Sixty numbers fit under sixty keys as well as under one. So do three hundred."""
    for count in (55, 60, 64, 300):
        metadata = {f"metric-{number}": number / 7 if count < 100 else number for number in range(count)}
        labels = _labels.write({}, metadata=metadata, reserve=ROOM)
        _labels.check_fits(labels, ROOM)
        assert _labels.read(labels).metadata == metadata
        assert len(labels) <= 64


def test_strings_stay_labels_if_there_is_room() -> None:
    """Numbers are packed before strings, so you can still filter by strings. Nothing is packed without need."""
    texts = {f"text-{number:02}": "x" for number in range(30)}
    numbers = {f"number-{number:02}": number for number in range(30)}

    few = _labels.write({}, metadata=texts | dict(list(numbers.items())[:20]), reserve=ROOM)
    assert not any(key.startswith("vr-pack") for key in few)
    many = _labels.write({}, metadata=texts | numbers, reserve=ROOM)
    assert texts.items() <= many.items()


@given(st.integers(0, 90), st.dictionaries(LABEL_TEXT.filter(bool) | TEXT, VALUES, max_size=90), st.data())
@pytest.mark.unmeasured  # likewise
def test_what_fits_nested_fits_flat(count: int, metadata: dict[str, Any], data: st.DataObject) -> None:
    """What fits packed under one key also fits under separate keys."""
    metadata |= {f"k{number}": data.draw(VALUES) for number in range(count)} if count % 3 == 0 else {}
    try:
        nested = _labels.write({}, metadata={"Packed": metadata}, reserve=ROOM)
        _labels.check_fits(nested, ROOM)
    except InvalidArgumentError:
        assume(False)
    flat = _labels.write({}, metadata=metadata, reserve=ROOM)
    _labels.check_fits(flat, ROOM)

    assert same(_labels.read(flat).metadata, metadata)
    assert list(_labels.read(flat).metadata) == sorted(metadata)


@given(st.dictionaries(LABEL_TEXT.filter(bool), LABEL_TEXT, max_size=64), st.dictionaries(TEXT, VALUES), NOTES)
def test_foreign_labels_are_not_packed(labels: dict[str, str], metadata: dict[str, Any], notes: dict[str, str]) -> None:
    """A foreign label that an update doesn't name stays unchanged."""
    labels = {key: label for key, label in labels.items() if not key.startswith("vr-pack")}
    try:
        changed = _labels.write(labels, metadata=metadata, own_labels=notes, reserve=ROOM)
    except InvalidArgumentError:
        assume(False)
    theirs = {key: label for key, label in labels.items() if key not in {*metadata, *notes} and label[:3] != "_j_"}
    assert theirs.items() <= changed.items()


@given(st.permutations(["b", "a", "Z", "c d", "é", "n"]))
def test_keys_come_back_in_order(keys: list[str]) -> None:
    """The order of keys doesn't depend on the order in which they were written or returned."""
    metadata = {key: [key] * 30 if key in {"a", "Z"} else key for key in keys}
    labels = _labels.write({}, metadata=metadata)
    assert list(_labels.read(dict(reversed(labels.items()))).metadata) == ["Z", "a", "b", "c d", "n", "é"]
