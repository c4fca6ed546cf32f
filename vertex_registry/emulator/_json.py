"""Strict JSON: reading a request's body into a message, and saying everything that is wrong with it.

protobuf's own parser reports one mistake, in its own words, and accepts [] and "" for any message. This one reports
every mistake with its path, in the words of Google's front end, many of which are published.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor

from vertex_registry.emulator._bounds import check_json
from vertex_registry.emulator._status import bad_request, writable

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from vertex_registry.emulator._status import Failure


def parse_body(body: bytes, target: Any, within: str) -> None:
    """Read a body into a message, which is the request or, with ``within``, the field of that name.

    Raises:
        Failure: INVALID_ARGUMENT.
    """
    given = read_json(body)
    if not isinstance(given, dict):
        raise refusal(("", unknown_name("", "", "Root element must be a message.")))
    try:
        if mistakes := tuple(itertools.islice(_mistakes(given, target.DESCRIPTOR, within), _MAXIMUM_MISTAKES)):
            raise refusal(*mistakes)
        json_format.ParseDict(given, target)
    except (json_format.ParseError, RecursionError):
        raise too_deep() from None


def too_deep() -> Failure:
    """Return the error for a request that is nested too deeply."""
    return bad_request("Invalid JSON payload received. It is nested too deeply.")


def read_json(body: bytes) -> Any:
    """Return the value of a body, and an empty object if the body is empty.

    Raises:
        Failure: INVALID_ARGUMENT: the body isn't JSON, or has too many values.
    """
    check_json(body)
    try:
        text = body.decode()
        return (
            json.loads(text, parse_constant=_no_constant, object_pairs_hook=without_duplicates) if text.strip() else {}
        )
    except UnicodeDecodeError:
        raise bad_request("Invalid JSON payload received. It is not UTF-8.") from None
    except json.JSONDecodeError as error:
        # The front end shows a line of the body here. It's left out, because anything may be in it.
        at_end = error.pos >= len(text.rstrip())
        why = "Unexpected end of string. Expected a value." if at_end else "Unexpected token."
    except RecursionError:
        why = "It is nested too deeply."
    except ValueError:
        why = "Unexpected token."
    raise bad_request(f"Invalid JSON payload received. {why}")


def _no_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON doesn't have."""
    raise ValueError(name)


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object that has these names and values, and refuse a name that comes twice."""
    given = dict(pairs)
    if len(given) < len(pairs):
        raise bad_request("Invalid JSON payload received. A name comes twice in one object.")
    return given


def to_snake_case(name: str) -> str:
    """Return a camelCase name in snake_case."""
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def is_mask(field: Any) -> bool:
    """Return whether a field is a FieldMask."""
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.FieldMask"


def set_parameter(message: Any, name: str, value: str, *, elsewhere: Container[str], seen: set[str]) -> None:
    """Set the field that a query parameter names.

    Args:
        message: The request.
        name: The parameter's name.
        value: Its value.
        elsewhere: The fields that the path or the body sets.
        seen: The fields that other parameters have set. The field is added to it.

    Raises:
        Failure: INVALID_ARGUMENT.
    """
    # A field that a query may set is neither repeated nor nested. Such fields are in a body.
    field = _field(message.DESCRIPTOR, name)
    if field is None or field.name in elsewhere:
        why = f"Cannot bind query parameter. Field '{name}' could not be found in request message."
        raise refusal((name, unknown_name(name, "", why)))
    if field.name in seen:
        # A guess: the front end says so about a list in a body where one value belongs.
        raise refusal((name, unknown_name(name, "", NOT_REPEATING)))
    seen.add(field.name)
    if is_mask(field):
        # Unchanged: a mask comes in either case, and the service reads both.
        getattr(message, field.name).paths.extend(filter(None, value.split(",")))
        return
    given: Any = value
    if field.type == FieldDescriptor.TYPE_BOOL:
        given = {"true": True, "false": False}.get(value, value)
    if not _is_taken(field, given, (field, given)):
        raise refusal((field.name, _invalid(field, name, value, field.name)))
    json_format.ParseDict({field.json_name: given}, message)


# --- mistakes ----------------------------------------------------------------

NOT_REPEATING: Final = "Proto field is not repeating, cannot start list."
# How many mistakes are reported. A guess: dozens have been recorded.
_MAXIMUM_MISTAKES: Final = 100
# Fields that hold the caller's own data, which no error repeats. The front end does repeat it.
_PRIVATE_FIELDS: Final = ("labels", "env", "metadata")
_PRIVATE: Final = re.compile(rf"\b(?:{'|'.join(_PRIVATE_FIELDS)})(?:\[|$)")
_ILLEGAL: Final = {
    "google.protobuf.Duration": "Illegal duration format; duration must end with 's'",
    "google.protobuf.Timestamp": (
        "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
    ),
}


def refusal(*mistakes: tuple[str, str]) -> Failure:
    """Return the error for these mistakes, each of which is a path and a sentence."""
    reported = tuple((path, writable(sentence)) for path, sentence in mistakes)
    return bad_request("\n".join(sentence for _, sentence in reported), *reported)


def _mistakes(given: dict[str, Any], of: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the sentence of everything that is wrong with an object that is to be a message."""
    given_already, taken = set(), set()
    for name, value in given.items():
        field = _field(of, name)
        if field is None:
            yield path, unknown_name(name, path, "Cannot find field.")
            continue
        # The words of this are a guess.
        if field.name in given_already:
            yield path, f"Invalid value{_at(path)}, the field '{field.name}' is set twice."
            continue
        given_already.add(field.name)
        if value is None:
            continue
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in taken:
            why = f"oneof field '{oneof.name}' is already set. Cannot set '{name}'"
            yield path, f"Invalid value{_at(path)} (oneof), {why}"
            continue
        taken.add(oneof and oneof.name)
        yield from _field_mistakes(field, name, value, path)


def _field_mistakes(field: Any, name: str, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the JSON of a field: a value, or a list or a map of them."""
    place = f"{path}.{field.name}" if path else field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if not isinstance(value, dict):
            # That it says so about a scalar too is a guess.
            kind = "list" if isinstance(value, list) else "scalar"
            yield path, f"Invalid value{_at(path)} (Map), Cannot bind a {kind} to map for field '{name}'."
            return
        # To the front end a map is a list of entries.
        inner_field = field.message_type.fields_by_name["value"]
        for at, (key, inner) in enumerate(value.items()):
            entry = f"{place}[{at}]"
            if writable(key) != key:
                yield f"{entry}.key", _invalid(field.message_type.fields_by_name["key"], "key", key, f"{entry}.key")
                continue
            yield from _value_mistakes(inner_field, "value", inner, entry, f"{entry}.value", (field, {key: inner}))
    elif field.default_value != []:  # not repeated: the oldest supported protobuf has no other word for it
        yield from _value_mistakes(field, name, value, path, place, (field, value))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _value_mistakes(field, name, inner, path, f"{place}[{at}]", (field, [inner]))
    else:
        # A guess: the front end may accept it as a list of one.
        yield place, _invalid(field, name, value, place)


def _value_mistakes(  # noqa: PLR0917 - what, where, and within what protobuf can be asked about it
    field: Any, name: str, value: Any, path: str, place: str, whole: tuple[Any, Any]
) -> Iterator[tuple[str, str]]:
    is_message = field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf.")
    if is_message and isinstance(value, dict):
        yield from _mistakes(value, field.message_type, place)
    elif not is_message and _is_taken(field, value, whole):
        return
    elif isinstance(value, list) and not _takes_lists(field):
        yield path, unknown_name(name, path, NOT_REPEATING)
    elif isinstance(value, dict) and value and field.message_type is None and not _PRIVATE.search(place):
        for inner in value:
            yield place, unknown_name(inner, place, "Cannot find field.")
    else:
        yield place, _invalid(field, name, value, place)


def _takes_lists(field: Any) -> bool:
    names = {"google.protobuf.Value", "google.protobuf.ListValue"}
    return field.message_type is not None and field.message_type.full_name in names


def _is_taken(field: Any, value: Any, whole: tuple[Any, Any]) -> bool:
    """Return whether protobuf accepts a value of a field that isn't a message of the API, in its list or map.

    ``whole`` is the field to ask protobuf about, and the JSON that it would have.
    """
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, str):
        # protobuf accepts whatever UTF-8 can write. Asking it would take longer.
        return value.isascii() or writable(value) == value
    outer, held = whole
    message = message_factory.GetMessageClass(outer.containing_type)()
    try:
        # JSON has no number for 1e400 once it's read, and UTF-8 can't write every text. protobuf accepts both in some
        # places and breaks in others.
        json.dumps(held, allow_nan=False, ensure_ascii=False).encode()
        json_format.ParseDict({outer.json_name: held}, message)
    except (json_format.ParseError, ValueError, OverflowError):
        # An integer that no double holds overflows.
        return False
    return True


def _field(of: Any, name: str) -> Any:
    """Return the field that has the name in either spelling, or None."""
    # protobuf fails on text that UTF-8 can't write.
    return (of.fields_by_name.get(name) or of.fields_by_camelcase_name.get(name)) if writable(name) == name else None


def _at(path: str) -> str:
    return f" at '{path}'" if path else ""


def unknown_name(name: str, path: str, why: str) -> str:
    """Return the sentence for a name that doesn't exist at a path."""
    return f'Invalid JSON payload received. Unknown name "{name}"{_at(path)}: {why}'


@functools.cache
def _may_hold_private(kind: Any, *within: Any) -> bool:
    """Return whether the JSON of such a message may hold the caller's own data."""
    return any(
        inner.name in _PRIVATE_FIELDS
        or (inner.message_type not in {None, kind, *within} and _may_hold_private(inner.message_type, kind, *within))
        for inner in kind.fields
    )


def _invalid(field: Any, name: str, value: Any, place: str) -> str:
    message = field.message_type
    kind = message or field.enum_type
    type_name = (
        f"type.googleapis.com/{kind.full_name}" if kind else descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    )
    is_private = _PRIVATE.search(place) or (message is not None and _may_hold_private(message))
    shown = "" if is_private else f", {json.dumps(value)}"
    if message is not None and message.full_name in _ILLEGAL:
        what = f"Invalid data type for {message.name.lower()}, value is {json.dumps(value)}"
        shown = f", Field '{name}', {_ILLEGAL[message.full_name] if isinstance(value, str) else what}"
    return f"Invalid value at '{place}' ({type_name}){shown}"
