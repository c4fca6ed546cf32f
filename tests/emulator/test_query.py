"""The parameters of a list: every documented spelling is understood, and everything else is refused."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final

import pytest
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.types import model_service
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vertex_registry.emulator._query import (
    DEFAULT_PAGE_SIZE,
    ESCAPES,
    LISTINGS,
    MAXIMUM_PAGE_SIZE,
    MAXIMUM_TERMS,
    Operator,
    OrderKey,
    Term,
    _checksum,
    _to_text,
    apply_read_mask,
    parse_query,
    parse_read_mask,
    parse_update_mask,
)
from vertex_registry.emulator._status import Code, Failure

if TYPE_CHECKING:
    from vertex_registry.emulator._query import Query

SCOPE: Final = "projects/1/locations/here"
MODEL: Final = aiplatform_v1.Model.pb(aiplatform_v1.Model()).DESCRIPTOR


def models(**asked: str | int) -> Query:
    return parse_query("ListModels", SCOPE, **asked)  # type: ignore[arg-type]


def terms(text: str, rpc: str = "ListModels") -> tuple[Term, ...]:
    return parse_query(rpc, SCOPE, filter=text).filter.terms


def refusal(text: str, rpc: str = "ListModels") -> str:
    with pytest.raises(Failure) as caught:
        terms(text, rpc)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.details[0].field_violations[0].field == "filter"  # type: ignore[attr-defined]
    return caught.value.message


def equals(field: str, value: str, key: str | None = None) -> Term:
    return Term(field, key, Operator.EQUALS, value)


# --- filters: what is documented ---------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model=1234", equals("model", "1234")),
        ('displayName="myDisplayName"', equals("display_name", "myDisplayName")),
        ('labels.myKey="myValue"', equals("labels", "myValue", "myKey")),
        ('baseModelName="text-bison"', equals("base_model_name", "text-bison")),
        ("display_name=example_", equals("display_name", "example_")),
        ("model!=1234", Term("model", None, Operator.DIFFERS, "1234")),
        ('display_name != "x"', Term("display_name", None, Operator.DIFFERS, "x")),
        ("labels.key:*", Term("labels", "key", Operator.HAS)),
        ("labels:key", Term("labels", "key", Operator.HAS)),
        ('labels:"a key"', Term("labels", "a key", Operator.HAS)),
        ('labels."a key":*', Term("labels", "a key", Operator.HAS)),
        ('labels."a key"=b', equals("labels", "b", "a key")),
    ],
)
def test_the_examples_of_the_reference_are_understood(text: str, expected: Term) -> None:
    """Every form in the documentation of ListModels parses to one term."""
    assert terms(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" \t\n ", ()),
        ("model=1 AND display_name=b", (equals("model", "1"), equals("display_name", "b"))),
        (" model = 1  AND\tlabels.k = v ", (equals("model", "1"), equals("labels", "v", "k"))),
        ("labels.k='it\\'s \"so\"'", (equals("labels", 'it\'s "so"', "k"),)),
        (r'labels."a\"b\\c"="\u00e9\x41\U0001F600\n"', (equals("labels", "éA😀\n", 'a"b\\c'),)),
        ('display_name="AND"', (equals("display_name", "AND"),)),
        ("display_name=", None),
        ("labels.k=1.5", (equals("labels", "1.5", "k"),)),
        ("labels.ключ=значение", (equals("labels", "значение", "ключ"),)),
        ('display_name=""', (equals("display_name", ""),)),
        ("base_model_name=publishers/google/models/x@1", (equals("base_model_name", "publishers/google/models/x@1"),)),
    ],
)
def test_terms_have_blanks_quotes_and_escapes(text: str, expected: tuple[Term, ...] | None) -> None:
    """Spaces around operators and AND are optional. Quotes of both kinds accept every escape."""
    if expected is None:
        assert "expected a value" in refusal(text)
    else:
        assert terms(text) == expected


def test_a_dotted_field_of_the_slices_is_one_name() -> None:
    """``slice.dimension`` is a field, and nothing longer or shorter is."""
    rpc = "ListModelEvaluationSlices"

    assert terms('slice.dimension="annotationSpec"', rpc) == (equals("slice.dimension", "annotationSpec"),)
    for other in ("slice=x", "slice.dimensions=x", "slice.dim=x", "slice.dimension.x=y", "slice.dimension!=x"):
        refusal(other, rpc)


# --- filters: what is not in the grammar -------------------------------------


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("model=1 OR model=2", 9),
        ("NOT model=1", 1),
        ("-model=1", 1),
        ("(model=1)", 1),
        ("model=1 model=2", 9),
        ("model=1 and model=2", 9),
        ("model=1 AND", 12),
        ("model=1 AND ", 13),
        ('display_name="a"AND model=1', 17),
        ('model=1 AND"x"', 12),
        ("model>1", 6),
        ("model<=1", 6),
        ("model:1", 6),
        ("model==1", 7),
        ("model", 6),
        ("create_time=1", 1),
        ("nonsense=1", 1),
        ("Model=1", 1),
        ("labels=x", 7),
        ("labels!=x", 7),
        ("labels.k!=v", 9),
        ("labels.k>v", 9),
        ("labels.k:v", 10),
        ("labels.k", 9),
        ("labels.", 8),
        ("labels.a.b=v", 9),
        ("labels:*", 8),
        ("labels:a b", 10),
        ("base_model_name!=x", 16),
        ("model.x=1", 6),
        ("display_name=a*", 15),
        ('display_name="abc', 14),
        (r'display_name="a\qc"', 16),
        (r'display_name="a\u12g4"', 16),
        (r'display_name="a\ud800"', 16),
        (r'display_name="a\U00110000"', 16),
        ('display_name="a\\', 16),
        ("display_name=NOT", 14),
    ],
)
def test_a_syntax_error_is_reported_with_its_position(text: str, position: int) -> None:
    """The message points at the first wrong character, counted from 1."""
    assert f"Invalid filter at position {position}: " in refusal(text)


@pytest.mark.parametrize("text", ["model=1", "display_name=x", "base_model_name=x", "slice.dimension=x"])
def test_versions_are_filtered_by_labels_alone(text: str) -> None:
    """ListModelVersions documents ``labels`` and nothing else."""
    assert "the fields are: labels" in refusal(text, "ListModelVersions")
    assert terms("labels.k=v", "ListModelVersions") == (equals("labels", "v", "k"),)


@pytest.mark.parametrize("rpc", sorted(rpc for rpc, listing in LISTINGS.items() if not listing.filters))
def test_a_list_without_documented_filters_takes_none(rpc: str) -> None:
    """An undocumented filter is refused, not ignored."""
    assert "the fields are: none" in refusal("labels.k=v", rpc)


def test_a_refusal_does_not_repeat_values() -> None:
    """A label's value may be anything, and no message repeats it."""
    assert "secret" not in refusal("labels.k=secret secret")
    assert "secret" not in refusal('labels.k="secret')


def test_a_long_filter_is_read_in_one_pass() -> None:
    """Parsing takes linear time. With anything worse, this test wouldn't end."""
    long = 300_000

    refusal("a." * long)
    refusal('labels."' + "\\\\" * long)
    refusal('labels."' + "k" * long)


def test_a_filter_has_so_many_terms_and_no_more() -> None:
    """The limit is far beyond what people write, and far below the database's own limit."""
    assert len(terms(" AND ".join(["labels.k=v"] * MAXIMUM_TERMS))) == MAXIMUM_TERMS
    assert "at most" in refusal(" AND ".join(["labels.k=v"] * (MAXIMUM_TERMS + 1)))


# --- filters: for every text -------------------------------------------------

_BACK: Final = {meaning: letter for letter, meaning in ESCAPES.items()}
_text: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def _quoted(draw: st.DrawFn, text: str) -> str:
    """Return the text in quotes, each character in one of its spellings."""
    quote = draw(st.sampled_from("\"'"))
    out = []
    for character in text:
        spellings = [f"\\U{ord(character):08x}"]
        if ord(character) <= 0xFFFF:
            spellings.append(f"\\u{ord(character):04X}")
        if ord(character) <= 0xFF:
            spellings.append(f"\\x{ord(character):02x}")
        if character in _BACK:
            spellings.append("\\" + _BACK[character])
        if character not in {quote, "\\"}:
            spellings.insert(0, character)
        out.append(draw(st.sampled_from(spellings)))
    return quote + "".join(out) + quote


@st.composite
def _filters(draw: st.DrawFn) -> tuple[str, tuple[Term, ...]]:
    """Return a filter in a random spelling, and its terms."""
    listing = LISTINGS["ListModels"]
    blank = st.text(" \t\n", max_size=2)
    written: list[str] = []
    meant: list[Term] = []
    for field in draw(st.lists(st.sampled_from(sorted(listing.filters)), max_size=4)):
        operator = draw(st.sampled_from(sorted(listing.filters[field])))
        name = draw(st.sampled_from([field, re.sub("_(.)", lambda found: found[1].upper(), field)]))
        key = draw(_text) if field in listing.maps else None
        value = draw(_text)
        if key is None:
            left, right = name, draw(_quoted(value))
        elif operator is Operator.HAS and draw(st.booleans()):
            left, right = name, draw(_quoted(key))
        else:
            left, right = f"{name}.{draw(_quoted(key))}", draw(_quoted(value))
            right = "*" if operator is Operator.HAS else right
        written.append(f"{left}{draw(blank)}{operator}{draw(blank)}{right}")
        meant.append(Term(field, key, operator, "" if operator is Operator.HAS else value))
    text = f" {draw(blank)}AND {draw(blank)}".join(written)
    return draw(blank) + text + draw(blank), tuple(meant)


@given(_filters())
def test_a_written_filter_parses_to_its_terms(case: tuple[str, tuple[Term, ...]]) -> None:
    """A filter over any keys and values, in any spelling, parses to the terms it was written from."""
    text, meant = case

    assert terms(text) == meant


@given(
    st.lists(
        st.sampled_from(
            [
                "labels",
                "model",
                "displayName",
                ".",
                "=",
                "!=",
                ":",
                "*",
                " ",
                "AND",
                "OR",
                '"',
                "'",
                "\\",
                "a",
                "(",
                "\0",
            ]
        )
    ).map("".join)
    | st.text(max_size=40),
    st.sampled_from(sorted(LISTINGS)),
)
@example("labels..k=v", "ListModels")
@example("\ud800", "ListModels")
def test_any_text_parses_or_is_refused(text: str, rpc: str) -> None:
    """A filter and an order of any text either parse or raise INVALID_ARGUMENT."""
    for asked in ({"filter": text}, {"order_by": text}, {"page_token": text}):
        try:
            parse_query(rpc, SCOPE, **asked)  # type: ignore[arg-type]
        except Failure as failure:
            assert failure.code is Code.INVALID_ARGUMENT
            for position in re.findall(r"Invalid filter at position (\d+)", failure.message):
                assert 1 <= int(position) <= len(text) + 1


# --- filters: what every match has -------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("model!=a", None),
        ("labels.model=a", None),
        ("display_name=a", None),
        ("labels:b AND model!=b AND model=a", "a"),
        ("model=a AND model=b", "a"),  # which nothing matches
    ],
)
def test_a_filter_shows_a_value_that_every_match_has(text: str, value: str | None) -> None:
    """A list that names one model by its id polls that model's operations."""
    assert models(filter=text).filter.equal("model") == value


# --- orders and pages --------------------------------------------------------


@pytest.mark.parametrize(
    ("rpc", "text", "expected"),
    [
        ("ListModels", "display_name, create_time desc", [OrderKey("display_name"), OrderKey("create_time", True)]),
        ("ListModels", "displayName", [OrderKey("display_name")]),
        (
            "ListModelVersions",
            "update_time asc, create_time desc",
            [OrderKey("update_time"), OrderKey("create_time", True)],
        ),
        ("ListModelVersions", " createTime   desc ", [OrderKey("create_time", True)]),
        ("ListModels", "", [OrderKey("create_time", True)]),
        ("ListModelVersions", "", [OrderKey("create_time")]),
        ("ListOperations", "", []),
    ],
)
def test_an_order_has_several_keys_and_two_spellings(rpc: str, text: str, expected: list[OrderKey]) -> None:
    """The reference's examples parse in both spellings. Every list has its default order."""
    assert parse_query(rpc, SCOPE, order_by=text).order == tuple(expected)


@pytest.mark.parametrize(
    ("rpc", "text", "where"),
    [
        ("ListModels", "create_time, createTime desc", 2),
        ("ListModels", "create_time down", 1),
        ("ListModels", "create_time asc desc", 1),
        ("ListModels", "create_time,", 2),
        ("ListModels", ",create_time", 1),
        ("ListModels", "version_id", 1),
        ("ListModelVersions", "create_time, display_name", 2),
        ("ListOperations", "create_time", 1),
    ],
)
def test_an_order_that_a_list_does_not_have_is_refused(rpc: str, text: str, where: int) -> None:
    """The message has the position of an unknown or repeated field, and of an invalid direction."""
    with pytest.raises(Failure, match=f"Invalid order in field {where}: ") as caught:
        parse_query(rpc, SCOPE, order_by=text)

    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("asked", "given_"), [(0, DEFAULT_PAGE_SIZE), (1, 1), (MAXIMUM_PAGE_SIZE + 1, MAXIMUM_PAGE_SIZE), (2**31 - 1, 1000)]
)
def test_a_page_size_is_at_most_the_maximum(asked: int, given_: int) -> None:
    """0 is the default, and a size over the maximum is the maximum."""
    assert models(page_size=asked).limit == given_


def test_a_negative_page_size_is_refused() -> None:
    """AIP-158 requires INVALID_ARGUMENT."""
    with pytest.raises(Failure, match="page_size"):
        models(page_size=-1)


_numbers: Final = st.integers(-(2**63), 2**63 - 1)
_values: Final[dict[type, st.SearchStrategy[str | int]]] = {int: _numbers, str: _text}
# The orders of each list, with the types of the values in a page token's position.
_POSITIONS: Final[tuple[tuple[str, str, tuple[type, ...]], ...]] = (
    ("ListModels", "", (int,)),
    ("ListModels", "create_time, display_name", (int,)),
    ("ListModels", "display_name", (str, int)),
    ("ListModels", "update_time desc, display_name", (int, str, int)),
    ("ListModels", "display_name, create_time desc, update_time", (str, int)),
    ("ListModelVersions", "", (int,)),
    ("ListModelVersions", "update_time", (int, int)),
    ("ListModelVersionCheckpoints", "", (str,)),
    ("ListModelEvaluations", "", (str,)),
    ("ListModelEvaluationSlices", "", (str,)),
    ("ListOperations", "", (str, str)),
    ("ListLocations", "", (str,)),
)


@given(st.data())
def test_a_token_carries_its_position(data: st.DataObject) -> None:
    """The query that a token came from gets the position back, even with another page size."""
    rpc, order, types = data.draw(st.sampled_from(_POSITIONS))
    position = tuple(data.draw(_values[kind]) for kind in types)
    token = parse_query(rpc, SCOPE, order_by=order, page_size=3).token(position)

    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert parse_query(rpc, SCOPE, order_by=order, page_size=7, page_token=token).after == position


def test_a_token_knows_its_query_by_what_it_means() -> None:
    """Another spelling of the same filter and order is the same query."""
    token = models(filter='displayName = "x"', order_by="createTime desc").token((1,))

    assert models(filter="display_name=x", order_by="", page_token=token).after == (1,)


_anything: Final[st.SearchStrategy[Any]] = (
    _text | _numbers | st.sampled_from([None, True, 1.5, 2**63, -(2**63) - 1, "\ud800", [], {}, [1]])
)
_bodies: Final = (
    st.lists(_anything, max_size=4).map(json.dumps).map(str.encode)
    | _anything.map(json.dumps).map(str.encode)
    | st.binary(max_size=20)
    | st.sampled_from([b"[NaN]", b"[1e999]", b"[" * 100_000, b"[" + b"9" * 5000 + b"]", b"[1,]", b'{"0":1}', b"[1] "])
)


@given(st.sampled_from(_POSITIONS), _bodies)
def test_a_forged_token_is_refused(entry: tuple[str, str, tuple[type, ...]], body: bytes) -> None:
    """The checksum isn't a secret. With a valid one, a position that doesn't fit the query is refused."""
    rpc, order, types = entry
    sealed = parse_query(rpc, SCOPE, order_by=order).fingerprint() + body
    token = _to_text(_checksum(sealed) + sealed)

    try:
        after = parse_query(rpc, SCOPE, order_by=order, page_token=token).after
    except Failure as failure:
        assert failure.code is Code.INVALID_ARGUMENT
        assert failure.details[0].field_violations[0].field == "page_token"  # type: ignore[attr-defined]
    else:
        # Somebody may make what could have been given out.
        assert after is not None
        assert tuple(type(value) for value in after) == types
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.execute(f"SELECT {', '.join('?' * len(after))}", after)


@given(st.data())
def test_a_token_that_was_cut_or_altered_is_refused(data: st.DataObject) -> None:
    """A token that was truncated, changed or extended is refused."""
    token = models().token(data.draw(st.tuples(_numbers)))
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("AQgw-_=+/. é\0"))
    altered = data.draw(st.sampled_from([token[:at], token[:at] + letter + token[at + 1 :], token + letter]))
    assume(altered not in (token, ""))

    with pytest.raises(Failure, match="page_token"):
        models(page_token=altered)


def test_other_padding_of_a_token_is_another_token() -> None:
    """Base64 allows several spellings of the last bits. The token has one."""
    token = next(token for n in range(9) if len(token := models().token((10**n,))) % 4)
    whole = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    twins = [
        token[:-1] + letter
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if letter != token[-1] and base64.urlsafe_b64decode(token[:-1] + letter + "=" * (-len(token) % 4)) == whole
    ]

    assert twins
    for twin in twins:
        with pytest.raises(Failure, match="page_token"):
            models(page_token=twin)


# --- field masks -------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], ()),
        (["*"], ()),
        (["name", "*"], ()),
        (["displayName", "display_name"], ("display_name",)),
        (["containerSpec.imageUri", "labels"], ("container_spec.image_uri", "labels")),
        (["base_model_source.modelGardenSource"], ("base_model_source.model_garden_source",)),
    ],
)
def test_a_read_mask_comes_in_two_spellings(paths: list[str], expected: tuple[str, ...]) -> None:
    """Paths of both spellings come out in snake_case, once. No path and ``*`` mean everything."""
    assert parse_read_mask(paths, MODEL) == expected


@pytest.mark.parametrize(
    "path",
    [
        "nonsense",
        "",
        ".",
        "name.x",
        "labels.team",
        "container_spec.ports.container_port",
        "name ",
        "display_Name",
        "metadata.stringValue",
    ],
)
def test_an_unknown_path_is_refused(path: str) -> None:
    """Neither mask accepts an unknown path, or one through a map, a repeated field or JSON."""
    for parse in (parse_read_mask, parse_update_mask):
        with pytest.raises(Failure, match="there is no such field") as caught:
            parse(["name", path], MODEL)

        assert caught.value.code is Code.INVALID_ARGUMENT


def test_an_update_mask_is_required() -> None:
    """UpdateModelRequest: the mask is required. ``*`` is left to the caller."""
    with pytest.raises(Failure, match="update_mask; Message: Required"):
        parse_update_mask([], MODEL)

    assert parse_update_mask(["versionDescription", "labels", "*"], MODEL) == ("version_description", "labels", "*")


def test_a_read_mask_leaves_what_it_names() -> None:
    """The result has the fields that the mask names, with whole map entries. The message itself is unchanged."""
    model = aiplatform_v1.Model(
        name="n",
        display_name="d",
        labels={"a": "1", "b": "2"},
        container_spec=aiplatform_v1.ModelContainerSpec(image_uri="i", command=["c"]),
    )
    raw = aiplatform_v1.Model.pb(model)
    masked = apply_read_mask(raw, parse_read_mask(["labels", "containerSpec.imageUri"], MODEL))

    assert masked == aiplatform_v1.Model.pb(
        aiplatform_v1.Model(labels={"a": "1", "b": "2"}, container_spec=aiplatform_v1.ModelContainerSpec(image_uri="i"))
    )
    assert raw.display_name == "d"
    assert apply_read_mask(raw, ()) is raw


@given(st.text(max_size=30) | st.lists(st.sampled_from(["name", "labels", "a", "*", "imageUri"])).map(".".join))
def test_any_path_parses_or_is_refused(path: str) -> None:
    """A path of any text either parses and can be applied, or raises INVALID_ARGUMENT."""
    try:
        mask = parse_read_mask([path], MODEL)
    except Failure as failure:
        assert failure.code is Code.INVALID_ARGUMENT
    else:
        apply_read_mask(aiplatform_v1.Model.pb(aiplatform_v1.Model()), mask)


# --- the tables against Google's ---------------------------------------------


@pytest.mark.parametrize("rpc", ["ListModels", "ListModelVersions"])
def test_the_tables_name_what_the_reference_names(rpc: str) -> None:
    """The fields and orders in the table are those in the documentation of the installed client."""
    document = getattr(model_service, f"{rpc}Request").__doc__
    filters, orders = document.split("filter (str)")[1], document.split("order_by (str)")[1]
    named = re.findall(r"- ``(\w+)`` (?:\w+ )?support", filters)

    assert sorted(named) == sorted(LISTINGS[rpc].filters)
    assert tuple(re.findall(r"- ``(\w+)``", orders)) == tuple(LISTINGS[rpc].orders)
