"""The parameters of lists: filters, orders, pages and field masks. Pure.

``LISTINGS`` says what each list allows, and one parser follows it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from google.protobuf import field_mask_pb2

from vertex_registry.emulator._status import invalid_argument, writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from vertex_registry.emulator._status import Failure

    AnyMessage = TypeVar("AnyMessage", bound=Message)

#: The values of a sort key, in the order of its fields. The last ones make it unique.
Position = tuple[str | int, ...]

# Vertex documents neither ("The standard list page size"): both are guesses. AIP-158: "If the user specifies page_size
# to a value greater than the maximum the API supports, the API should coerce to the maximum."
DEFAULT_PAGE_SIZE: Final = 100
MAXIMUM_PAGE_SIZE: Final = 1000
#: How many terms a filter may have: a guess, and far fewer than would slow a database.
MAXIMUM_TERMS: Final = 100
#: The most characters of each field of a list request, and the most paths of a mask: guesses as well.
MAXIMUM_FILTER: Final = 64 * 1024
MAXIMUM_ORDER: Final = 4 * 1024
MAXIMUM_TOKEN: Final = 16 * 1024
MAXIMUM_PATHS: Final = 1000
MAXIMUM_PATH: Final = 4 * 1024
#: How many filters, and how many orders, are kept as they were read.
_KNOWN: Final = 64


# --- what each list allows ---------------------------------------------------


class Operator(enum.StrEnum):
    """The operator of a term."""

    EQUALS = "="
    DIFFERS = "!="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One field to order by.

    Attributes:
        field: Its name, in snake_case.
        descending: Whether the largest value comes first.
    """

    field: str
    descending: bool = False


_EQUAL_OR_NOT: Final = frozenset({Operator.EQUALS, Operator.DIFFERS})
_EQUAL: Final = frozenset({Operator.EQUALS})
_MAP: Final = frozenset({Operator.EQUALS, Operator.HAS})


@dataclass(frozen=True, slots=True)
class Listing:
    """What one list RPC allows.

    Attributes:
        filters: The fields of a filter, in snake_case, with the operators that each supports.
        maps: Those of them that are maps. Their terms are about a key.
        orders: The fields of ``order_by``, in snake_case, with the types of their values.
        default_order: The order if none is requested.
        key: The types of the unique key of its rows, which ends every position. Numbered rows are in the order of their
            ``create_time``, so it's ordered by the number.
    """

    filters: Mapping[str, frozenset[Operator]] = field(default_factory=dict)
    maps: frozenset[str] = frozenset()
    orders: Mapping[str, type] = field(default_factory=dict)
    default_order: tuple[OrderKey, ...] = ()
    key: tuple[type, ...] = (str,)

    def position(self, order: Iterable[OrderKey]) -> tuple[type, ...]:
        """Return the types of the values in a position of that order."""
        fields = itertools.takewhile(lambda field: field != "create_time", (key.field for key in order))
        return (*(self.orders[field] for field in fields), *self.key)


#: The lists, by the name of their RPC. If the reference names no field of a list, any filter is refused.
LISTINGS: Final[Mapping[str, Listing]] = MappingProxyType(
    {
        # ListModelsRequest.filter: "`model` supports = and !=. `display_name` supports = and !=. `labels` supports
        # general map functions that is: `labels.key=value` - key:value equality, `labels.key:* or labels:key - key
        # existence. A key including a space must be quoted. `base_model_name` only supports =".
        # ListModelsRequest.order_by: "Supported fields: display_name, create_time, update_time".
        # That the newest model comes first by default is a guess.
        "ListModels": Listing(
            filters={
                "model": _EQUAL_OR_NOT,
                "display_name": _EQUAL_OR_NOT,
                "labels": _MAP,
                "base_model_name": _EQUAL,
            },
            maps=frozenset({"labels"}),
            orders={"display_name": str, "create_time": int, "update_time": int},
            default_order=(OrderKey("create_time", descending=True),),
            key=(int,),
        ),
        # ListModelVersionsRequest.filter names `labels` alone, order_by `create_time` and `update_time`. Google's own
        # system test finds version 1 before version 2 when it asks for no order.
        "ListModelVersions": Listing(
            filters={"labels": _MAP},
            maps=frozenset({"labels"}),
            orders={"create_time": int, "update_time": int},
            default_order=(OrderKey("create_time"),),
            key=(int,),
        ),
        "ListModelVersionCheckpoints": Listing(),
        "ListModelEvaluations": Listing(),
        # ListModelEvaluationSlicesRequest.filter names "`slice.dimension`", and says that it is "for =".
        "ListModelEvaluationSlices": Listing(filters={"slice.dimension": _EQUAL}),
        # An operation is identified by its model and its own id.
        "ListOperations": Listing(key=(str, str)),
        "ListLocations": Listing(),
    }
)


# --- a query -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One condition of a filter.

    Attributes:
        field: The field, in snake_case.
        key: The key, where the field is a map.
        operator: The operator.
        value: The value to compare with. Empty if the term is only about the existence of a key.
    """

    field: str
    key: str | None
    operator: Operator
    value: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """A conjunction of terms. Without terms, everything matches.

    Attributes:
        terms: The terms, in the order they were written.
    """

    terms: tuple[Term, ...] = ()

    def equal(self, field: str) -> str | None:
        """Return the value that a field, not a map, has in every row that matches."""
        for term in self.terms:
            if (term.field, term.key, term.operator) == (field, None, Operator.EQUALS):
                return term.value
        return None


@dataclass(frozen=True, slots=True)
class Query:
    """One page of one list.

    Attributes:
        rpc: The RPC, one of ``LISTINGS``.
        scope: What is listed, such as the parent.
        filter: What the rows have to match.
        order: What they are ordered by. The caller adds a unique key.
        limit: The most rows of the page.
        after: The position of the last row of the page before, or None for the first page.
    """

    rpc: str
    scope: str
    filter: Filter
    order: tuple[OrderKey, ...]
    limit: int
    after: Position | None = None

    def token(self, position: Position) -> str:
        """Return the token of the page that begins after this position."""
        return _encode_token(position, self.fingerprint())

    def fingerprint(self) -> bytes:
        """Return what the page tokens of the list are bound to."""
        # The page size isn't part of it: a caller may change it from page to page, as AIP-158 says.
        requested = [
            self.rpc,
            self.scope,
            [[term.field, term.key, term.operator, term.value] for term in self.filter.terms],
            [[key.field, key.descending] for key in self.order],
        ]
        return hashlib.blake2b(json.dumps(requested).encode(), digest_size=_DIGEST).digest()


def parse_query(  # the request's own fields
    rpc: str,
    scope: str,
    *,
    filter: str = "",  # noqa: A002 - it is the field's name
    order_by: str = "",
    page_size: int = 0,
    page_token: str = "",
) -> Query:
    """Return the query that the fields of a list request make.

    Args:
        rpc: The RPC, one of ``LISTINGS``.
        scope: What is listed, such as the parent. A page token is valid for one scope.
        filter: The request's filter.
        order_by: The request's order.
        page_size: The request's page size. 0 means the default, and more than the maximum means the maximum.
        page_token: The token that came with the page before.

    Raises:
        Failure: INVALID_ARGUMENT: one of them is invalid.
    """
    listing = LISTINGS[rpc]
    for name, text, maximum in (
        ("filter", filter, MAXIMUM_FILTER),
        ("order_by", order_by, MAXIMUM_ORDER),
        ("page_token", page_token, MAXIMUM_TOKEN),
    ):
        if len(text) > maximum:
            raise invalid_argument((name, f"The value must be at most {maximum} characters long"))
    query = Query(rpc, scope, _parse_filter(rpc, filter), _parse_order(rpc, order_by), _parse_page_size(page_size))
    if not page_token:
        return query
    return replace(query, after=_decode_token(page_token, query.fingerprint(), listing.position(query.order)))


def query_of(rpc: str, scope: str, request: Any) -> Query:
    """Return the query of a list request, some of which have no filter or no order."""
    return parse_query(
        rpc,
        scope,
        filter=getattr(request, "filter", ""),
        order_by=getattr(request, "order_by", ""),
        page_size=request.page_size,
        page_token=request.page_token,
    )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _spellings(names: Iterable[str]) -> dict[str, str]:
    """Return each name by each of its spellings."""
    return {spelling: name for name in names for spelling in (name, _camel(name))}


# --- filters -----------------------------------------------------------------


# A client that lists the versions of many models sends the same filter and the same order with each request.
@functools.lru_cache(maxsize=_KNOWN)
def _parse_filter(rpc: str, text: str) -> Filter:
    return Filter(_FilterParser(LISTINGS[rpc], text).parse())


#: What may follow a backslash in quotes, and what it means. `x`, `u` and `U` are followed by 2, 4 and 8 hex digits.
#: These are CEL's, because Vertex's reference names none: a guess, except for the quotes and the backslash.
ESCAPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "a": "\a",
        "b": "\b",
        "f": "\f",
        "n": "\n",
        "r": "\r",
        "t": "\t",
        "v": "\v",
        **{itself: itself for itself in "\\\"'`?/"},
    }
)
_HEXADECIMAL: Final = {"x": 2, "u": 4, "U": 8}
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT"})

_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_NAME: Final = re.compile(r"""[^\s"'`()<>=!:,*.\\]+""")
_BARE: Final = re.compile(r"""[^\s"'`()<>=!:,*\\]+""")
_OPERATOR: Final = re.compile(r"!=|<=|>=|[=<>:]")
_HEX_DIGITS: Final = re.compile(r"[0-9a-fA-F]+")
_SHOWN: Final = 64


class _FilterParser:
    """Reads one filter, from left to right.

    A filter is a conjunction of terms, which is all that Vertex documents::

        filter = term *( AND term )          term = field ( "=" | "!=" ) value | map "." key "=" value
                                                    | map "." key ":" "*"      | map ":" key

    Keys and values are bare, or in single or double quotes with the escapes of ``ESCAPES``. Names of fields come in
    snake_case and camelCase. Blanks are allowed around an operator and required around ``AND``. Everything else in
    AIP-160 is refused with the position, counted from 1, of the first wrong character. That is a guess if Vertex's
    reference doesn't say so.
    """

    def __init__(self, listing: Listing, text: str) -> None:
        self._listing = listing
        self._fields = _spellings(listing.filters)
        self._text = text
        self._at = 0

    def parse(self) -> tuple[Term, ...]:
        self._skip_blanks()
        if self._at == len(self._text):
            return ()
        terms = [self._term()]
        while True:
            blanks = self._skip_blanks()
            if self._at == len(self._text):
                return tuple(terms)
            if self._match(_NAME) != "AND" or not blanks:
                self._refuse("expected AND or the end")
            self._at += len("AND")
            if not self._skip_blanks():
                self._refuse("expected a blank after AND")
            if len(terms) == MAXIMUM_TERMS:
                self._refuse(f"a filter has at most {MAXIMUM_TERMS} terms")
            terms.append(self._term())

    def _term(self) -> Term:
        field, key = self._field()
        self._skip_blanks()
        operator = self._operator(field, key)
        self._skip_blanks()
        if operator is not Operator.HAS:
            return Term(field, key, operator, self._value(_BARE, "a value"))
        if key is None:
            return Term(field, self._value(_NAME, "a key"), operator)
        if self._text[self._at : self._at + 1] != "*":
            self._refuse(f"expected * after {field}.key:")
        self._at += 1
        return Term(field, key, operator)

    def _field(self) -> tuple[str, str | None]:
        begin = self._at
        name = self._match(_NAME)
        if name is None or name in _KEYWORDS:
            self._refuse("expected a field")
        self._at += len(name)
        for dotted in (spelling for spelling in self._fields if "." in spelling):
            if self._text.startswith(dotted, begin) and not self._match(_NAME, begin + len(dotted)):
                name, self._at = dotted, begin + len(dotted)
        if name not in self._fields:
            known = ", ".join(self._listing.filters) or "none"
            self._refuse(f"there is no field {name[:_SHOWN]!r} to filter by; the fields are: {known}", at=begin)
        field = self._fields[name]
        if self._text[self._at : self._at + 1] != ".":
            return field, None
        if field not in self._listing.maps:
            self._refuse(f"{field} has no fields of its own")
        self._at += 1
        key = self._value(_NAME, "a key")
        if self._text[self._at : self._at + 1] == ".":
            self._refuse("expected an operator; a key with a dot in it is quoted")
        return field, key

    def _operator(self, field: str, key: str | None) -> Operator:
        found = self._match(_OPERATOR)
        supported = sorted(self._listing.filters[field])
        if field in self._listing.maps and key is None:
            supported = [Operator.HAS]
        if found not in supported:
            self._refuse(f"expected {' or '.join(supported)} after {field}{'.key' if key is not None else ''}")
        self._at += len(found)
        return Operator(found)

    def _value(self, bare: re.Pattern[str], what: str) -> str:
        if self._text[self._at : self._at + 1] in {'"', "'"}:
            return self._quoted()
        text = self._match(bare)
        if text is None:
            self._refuse(f"expected {what}")
        if text in _KEYWORDS:
            self._refuse(f"expected {what}; put {text} in quotes to match it as text")
        self._at += len(text)
        return text

    def _quoted(self) -> str:
        begin, quote = self._at, self._text[self._at]
        parts = []
        self._at += 1
        plain = re.compile(rf"[^\\{quote}]*")
        while True:
            parts.append(self._match(plain) or "")
            self._at += len(parts[-1])
            if self._at == len(self._text):
                self._refuse("this quote is not closed", at=begin)
            if self._text[self._at] == quote:
                self._at += 1
                return "".join(parts)
            parts.append(self._escaped())

    def _escaped(self) -> str:
        letter = self._text[self._at + 1 : self._at + 2]
        if letter in ESCAPES:
            self._at += 2
            return ESCAPES[letter]
        length = _HEXADECIMAL.get(letter, 0)
        digits = self._text[self._at + 2 : self._at + 2 + length]
        if not length or len(digits) < length or not _HEX_DIGITS.fullmatch(digits):
            self._refuse("this escape doesn't exist")
        number = int(digits, 16)
        if 0xD800 <= number <= 0xDFFF or number > 0x10FFFF:  # noqa: PLR2004 - the bounds of Unicode's scalar values
            self._refuse("this escape isn't a character")
        self._at += 2 + length
        return chr(number)

    def _match(self, pattern: re.Pattern[str], at: int | None = None) -> str | None:
        found = pattern.match(self._text, self._at if at is None else at)
        return found and found.group()

    def _skip_blanks(self) -> bool:
        """Skip blanks, and return whether there were any."""
        begin = self._at
        self._at += len(self._match(_BLANKS) or "")
        return self._at > begin

    def _refuse(self, why: str, *, at: int | None = None) -> NoReturn:
        position = (self._at if at is None else at) + 1
        raise invalid_argument(("filter", f"Invalid filter at position {position}: {why}"))


# --- orders and page sizes ---------------------------------------------------


@functools.lru_cache(maxsize=_KNOWN)
def _parse_order(rpc: str, text: str) -> tuple[OrderKey, ...]:
    """Return the keys of an ``order_by``.

    AIP-132: "The default sorting order is ascending. To specify descending order for a field, users append a " desc"
    suffix. Redundant space characters in the syntax are insignificant."
    """
    listing = LISTINGS[rpc]
    if not text.strip():
        return listing.default_order
    fields = _spellings(listing.orders)
    keys: dict[str, OrderKey] = {}
    for position, part in enumerate(text.split(","), start=1):
        name, *direction = part.split() or [""]
        if name not in fields:
            known = ", ".join(listing.orders) or "none"
            raise _bad_order(position, f"there is no field {name[:_SHOWN]!r} to order by; the fields are: {known}")
        if direction not in ([], ["asc"], ["desc"]):
            raise _bad_order(position, "expected asc, desc or nothing after the field")
        field = fields[name]
        if field in keys:
            raise _bad_order(position, f"{field} comes twice")
        keys[field] = OrderKey(field, descending=direction == ["desc"])
    return tuple(keys.values())


def _bad_order(position: int, why: str) -> Failure:
    return invalid_argument(("order_by", f"Invalid order in field {position}: {why}"))


def _parse_page_size(size: int) -> int:
    # AIP-158: "If the user does not specify page_size (or specifies 0), the API chooses an appropriate default"; "If
    # the user specifies a negative value for page_size, the API must send an INVALID_ARGUMENT error."
    if size < 0:
        raise invalid_argument(("page_size", "The page size must not be negative"))
    return min(size or DEFAULT_PAGE_SIZE, MAXIMUM_PAGE_SIZE)


# --- page tokens -------------------------------------------------------------

# A page token has the values of the sort key of the last row, so a page costs the same wherever it begins. It's bound
# to its query, because a position in one order means nothing in another. The checksum detects tokens that were
# truncated or changed. It isn't a secret: the values of a forged token are checked like all others.
_DIGEST: Final = 8


def _encode_token(position: Position, fingerprint: bytes) -> str:
    body = fingerprint + json.dumps(position, separators=(",", ":")).encode()
    return _to_text(_checksum(body) + body)


def _decode_token(token: str, fingerprint: bytes, types: tuple[type, ...]) -> Position:
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        sealed = b""
    checksum, body = sealed[:_DIGEST], sealed[_DIGEST:]
    # Base64 has several spellings of some bytes. Only the one that was given out is a token.
    if _checksum(body) != checksum or _to_text(sealed) != token:
        raise _not_a_token()
    if body[:_DIGEST] != fingerprint:
        raise invalid_argument(("page_token", "The page token belongs to another query: only page_size may change"))
    try:
        position = json.loads(body[_DIGEST:])
    except (ValueError, RecursionError):
        raise _not_a_token() from None
    if not isinstance(position, list) or tuple(map(type, position)) != types or not all(map(_is_value, position)):
        raise _not_a_token()
    return tuple(position)


def _is_value(value: str | int) -> bool:
    """Return whether a row may have the value: numbers have 64 bits, and texts can be written in UTF-8."""
    return value == writable(value) if isinstance(value, str) else -(2**63) <= value < 2**63


def _not_a_token() -> Failure:
    return invalid_argument(("page_token", "This isn't a page token of this server"))


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST, person=b"page token").digest()


def _to_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


# --- field masks -------------------------------------------------------------

EVERYTHING: Final = "*"

_JSON: Final = frozenset(f"google.protobuf.{name}" for name in ("Value", "Struct", "ListValue"))


def parse_read_mask(paths: Iterable[str], descriptor: Descriptor) -> tuple[str, ...]:
    """Return the paths to read, in snake_case, each once, or none if everything is to be read.

    AIP-157: "If a field mask is not specified, all fields are returned"; ``*`` means all fields as well.

    Args:
        paths: The paths of the request's mask.
        descriptor: The message that they are in.

    Raises:
        Failure: INVALID_ARGUMENT: a path doesn't exist.
    """
    found = _parse_paths("read_mask", paths, descriptor)
    return () if EVERYTHING in found else found


def parse_update_mask(paths: Iterable[str], descriptor: Descriptor) -> tuple[str, ...]:
    """Return the paths to update, in snake_case, each once. ``*`` stays ``*``.

    Raises:
        Failure: INVALID_ARGUMENT: a path doesn't exist, or there are none although the mask is required.
    """
    found = _parse_paths("update_mask", paths, descriptor)
    if not found:
        raise invalid_argument(("update_mask", "Required field is not set"))
    return found


def apply_read_mask(message: AnyMessage, mask: tuple[str, ...]) -> AnyMessage:
    """Return the message with only what the mask names, or the message itself if the mask is empty."""
    if not mask:
        return message
    masked = type(message)()
    field_mask_pb2.FieldMask(paths=mask).MergeMessage(message, masked)
    return masked


def _parse_paths(field: str, paths: Iterable[str], descriptor: Descriptor) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for position, path in enumerate(paths):
        if position >= MAXIMUM_PATHS or len(path) > MAXIMUM_PATH:
            limits = f"{MAXIMUM_PATHS} paths of {MAXIMUM_PATH} characters"
            raise invalid_argument((field, f"The mask must have at most {limits}"))
        found[_parse_path(field, path, descriptor)] = None
    return tuple(found)


def _parse_path(field: str, path: str, descriptor: Descriptor) -> str:
    """Return a path in snake_case.

    FieldMask: "A repeated field is not allowed except at the last position of a paths string", and a map is a repeated
    field. AIP-161 would let a mask name the keys of a map. That Vertex doesn't is a guess. Any JSON is a whole too,
    because a part of it might not be a value.
    """
    if path == EVERYTHING:
        return path
    names = []
    within: Descriptor | None = descriptor
    for segment in path.split("."):
        found = within and (within.fields_by_name.get(segment) or within.fields_by_camelcase_name.get(segment))
        if not found:
            raise invalid_argument((field, f"Invalid path {path[:_SHOWN]!r}: there is no such field"))
        names.append(found.name)
        is_whole = not found.has_presence or (found.message_type and found.message_type.full_name in _JSON)
        within = None if is_whole else found.message_type
    return ".".join(names)
