"""Google's system parameter ``fields``: which fields of a response a caller wants. Pure.

A selection is a comma-separated list of paths, such as ``models(name,labels/team),nextPageToken``. It is read against
the type of the response before a request is carried out, and applied to the response.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from vertex_registry.emulator._status import bad_request, writable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

    from vertex_registry.emulator._status import Failure

#: The selected fields by name, each with what is selected of it, or None if it's selected as a whole.
Selection: TypeAlias = "dict[str, Selection | None]"

#: The most characters of a selection, and the most levels of it: guesses, and more than a response has.
MAXIMUM_LENGTH: Final = 16 * 1024
MAXIMUM_DEPTH: Final = 64

_TOKEN: Final = re.compile(r"\s*(?:`([^`]*)`|([^\s,()/.`]+)|([,()/.])|$)")
_ANY_FIELD: Final = "*"
_FREE: Final = frozenset(f"google.protobuf.{name}" for name in ("Value", "Struct", "ListValue", "Any"))
_SHOWN: Final = 200
_NOT_SELECTED: Final[Selection] = {}


def parse_selection(text: str, descriptor: Descriptor) -> Selection | None:
    """Return what a text selects of a message of that type, or None if it selects everything.

    Raises:
        Failure: INVALID_ARGUMENT: the text isn't a selection, or the type has no such field.
    """
    if len(text) > MAXIMUM_LENGTH:
        raise _refused("", f"It is longer than {MAXIMUM_LENGTH} characters.")
    if not text.strip():
        return None
    return _resolve(_Parser(text).parse(), descriptor, ())


def apply_selection(message: Any, selection: Selection) -> None:
    """Clear every field of the message that isn't selected."""
    kind = message.DESCRIPTOR.full_name
    if kind == "google.protobuf.Any":
        _apply_to_packed(message, selection)
    elif kind == "google.protobuf.Value":
        _apply_to_value(message, selection)
    elif kind == "google.protobuf.Struct":
        _apply_to_map(message.fields, selection)
    elif kind == "google.protobuf.ListValue":
        for item in message.values:
            _apply_to_value(item, selection)
    else:
        for field, value in message.ListFields():
            inner = selection.get(field.name, _NOT_SELECTED)
            if inner is _NOT_SELECTED:
                message.ClearField(field.name)
            elif inner is not None:
                _apply_to_field(field, value, inner)


def _apply_to_field(field: Any, value: Any, selection: Selection) -> None:
    if _is_map(field):
        _apply_to_map(value, selection)
    elif _is_repeated(field):
        for item in value:
            apply_selection(item, selection)
    else:
        apply_selection(value, selection)


def _apply_to_map(entries: Any, selection: Selection) -> None:
    for key in list(entries):
        inner = _selected_of(selection, str(key))
        if inner is _NOT_SELECTED:
            del entries[key]
        elif inner is not None:
            apply_selection(entries[key], inner)


def _apply_to_value(value: Any, selection: Selection) -> None:
    if value.HasField("struct_value"):
        _apply_to_map(value.struct_value.fields, selection)
    elif value.HasField("list_value"):
        for item in value.list_value.values:
            _apply_to_value(item, selection)


def _apply_to_packed(packed: Any, selection: Selection) -> None:
    """Apply a selection to what is packed in an ``Any``. What can't be unpacked here stays as it is."""
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.type_url.rpartition("/")[2])
        message = message_factory.GetMessageClass(descriptor).FromString(packed.value)
    except (KeyError, DecodeError):
        return
    apply_selection(message, _resolve(selection, descriptor, (), strict=False) or {})
    packed.value = message.SerializeToString()


def _selected_of(selection: Selection, name: str) -> Selection | None:
    """Return what is selected of a name, by itself or by a wildcard."""
    found = [selection[each] for each in (name, _ANY_FIELD) if each in selection]
    if not found:
        return _NOT_SELECTED
    return _merge(*found) if len(found) > 1 else found[0]


def _merge(one: Selection | None, other: Selection | None) -> Selection | None:
    if one is None or other is None:
        return None
    merged = dict(one)
    for name, inner in other.items():
        merged[name] = _merge(merged[name], inner) if name in merged else inner
    return merged


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_repeated(field: Any) -> bool:
    return bool(field.default_value == [])  # the oldest supported protobuf has no other word for it


# --- reading -----------------------------------------------------------------


class _Parser:
    """One selection being read, from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = list(self._split(text))
        self._at = 0

    @staticmethod
    def _split(text: str) -> Iterator[tuple[str, str]]:
        """Yield each token with its kind: ``name``, or the sign that it is; last comes the end."""
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise _refused(text, "A quoted name isn't closed.")
            quoted, name, sign = found.groups()
            if sign:
                yield sign, sign
            elif quoted is not None or name is not None:
                yield "name", name if quoted is None else quoted
            position = found.end()
        yield "end", ""

    def parse(self) -> Selection:
        selection = self._fields(1)
        if self._next()[0] != "end":
            raise self._unexpected()
        return selection

    def _next(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _take(self, *kinds: str) -> str | None:
        """Return the next token's kind and skip it, if it's one of these."""
        kind, _ = self._tokens[self._at]
        if kind not in kinds:
            return None
        self._at += 1
        return kind

    def _fields(self, depth: int) -> Selection:
        selection: Selection = {}
        while True:
            path, inner = self._path(depth)
            for name in reversed(path[1:]):
                inner = {name: inner}
            first = path[0]
            selection[first] = _merge(selection[first], inner) if first in selection else inner
            if not self._take(","):
                return selection

    def _path(self, depth: int) -> tuple[list[str], Selection | None]:
        """Read ``a/b`` or ``a/b(c,d)``: the names of a path, and what is selected at its end."""
        path: list[str] = []
        while True:
            kind, name = self._next()
            if kind != "name":
                raise self._unexpected()
            path.append(name)
            if depth + len(path) > MAXIMUM_DEPTH:
                raise _refused(name, f"It has more than {MAXIMUM_DEPTH} levels.")
            if not self._take("/", "."):
                break
        if not self._take("("):
            return path, None
        inner = self._fields(depth + len(path))
        if self._next()[0] != ")":
            raise self._unexpected()
        return path, inner

    def _unexpected(self) -> Failure:
        kind, text = self._tokens[self._at - 1]
        what = "the end" if kind == "end" else f"'{text[:_SHOWN]}'"
        return _refused(text, f"Unexpected {what}.")


def _resolve(
    selection: Selection, descriptor: Descriptor, path: tuple[str, ...], *, strict: bool = True
) -> Selection | None:
    """Return the selection with the names that the type's fields really have; None selects the whole message.

    With ``strict`` a path that matches no field is refused, otherwise it selects nothing.
    """
    if descriptor.full_name in _FREE:
        return selection
    resolved: Selection = {}
    for name, inner in selection.items():
        within = (*path, name)
        if name == _ANY_FIELD:
            if inner is None:
                return None
            # A field that has no such parts is not what is meant, as long as another one has them.
            parts = {field.name: _resolve_part(inner, field, within, strict=False) for field in descriptor.fields}
            found = {field: part for field, part in parts.items() if part is None or part}
        else:
            field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
            found = {field.name: _resolve_part(inner, field, within, strict=strict)} if field else {}
        if strict and not found:
            raise _unmatched((*within, *_first_path(inner)))
        for field_name, part in found.items():
            resolved[field_name] = _merge(resolved[field_name], part) if field_name in resolved else part
    return resolved


def _resolve_part(selection: Selection | None, field: Any, path: tuple[str, ...], *, strict: bool) -> Selection | None:
    """Resolve what is selected of a field. An empty selection says that the field has no such parts."""
    if selection is None:
        return None
    if _is_map(field):
        value = field.message_type.fields_by_name["value"]
        resolved: Selection = {}
        for key, inner in selection.items():
            part = _resolve_part(inner, value, (*path, key), strict=strict)
            if part is None or part:
                resolved[key] = part
        return resolved
    if field.message_type is None:
        if strict:
            raise _unmatched((*path, *_first_path(selection)))
        return {}
    return _resolve(selection, field.message_type, path, strict=strict)


def _first_path(selection: Selection | None) -> Iterator[str]:
    while selection:
        name, selection = next(iter(selection.items()))
        yield name


def _unmatched(path: tuple[str, ...]) -> Failure:
    shown = ".".join(path)[:_SHOWN]
    return _refused(shown, f"Cannot find matching fields for path '{shown}'.", expanding=True)


def _refused(path: str, why: str, *, expanding: bool = False) -> Failure:
    """Return the error for a selection, in the words of Google's front end; those for a bad syntax are a guess."""
    what = "expanding" if expanding else "parsing"
    described = (writable(path[:_SHOWN]), writable(f"Error {what} 'fields' parameter. {why}"))
    return bad_request("Request contains an invalid argument.", described)
