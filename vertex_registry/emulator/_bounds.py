"""How much one request may hold, counted in its bytes before they are parsed.

A value costs about ten microseconds. Without a bound, a few megabytes of empty lists would take a minute.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from vertex_registry.emulator._status import bad_request

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from vertex_registry.emulator._status import Failure

#: The most bytes of one request, over either transport, and the most values in it. What Vertex takes isn't known.
LONGEST_REQUEST: Final = 32 * 1024 * 1024
MOST_VALUES: Final = 100_000

# Every value of JSON but the first one in a list or an object follows a comma. A text that isn't closed goes on to the
# end: a pattern that failed there would be tried again at each of its quotes.
_JSON_STEP: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,]', re.DOTALL)
_JSON_MARKS: Final = (b"[", b"{", b",")
_QUOTE: Final = ord('"')

_VARINT, _FIXED64, _BYTES, _GROUP, _END_OF_GROUP, _FIXED32 = range(6)
_PACKED_SIZE: Final = {
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
}


def check_json(body: bytes) -> None:
    """Refuse JSON with too many values. Whether it's valid JSON is for its parser to say.

    Raises:
        Failure: INVALID_ARGUMENT.
    """
    if sum(map(body.count, _JSON_MARKS)) <= MOST_VALUES:
        return
    # There may be as many commas in texts: those are passed over, one at a time, so that others get a turn. A value has
    # at most two texts, its name and itself.
    marks = texts = 0
    for step in _JSON_STEP.finditer(body):
        if body[step.start()] == _QUOTE:
            texts += 1
        else:
            marks += 1
        if marks > MOST_VALUES or texts > 2 * MOST_VALUES + 2:
            raise _too_many()


def check_message(data: bytes, descriptor: Descriptor) -> None:
    """Refuse a serialised message with too many fields. Whether it's valid is for protobuf to say.

    Raises:
        Failure: INVALID_ARGUMENT.
    """
    if len(data) > MOST_VALUES and _Scanner(data, descriptor).finds_too_many():
        raise _too_many()


def _too_many() -> Failure:
    return bad_request(f"The request has more than {MOST_VALUES} values. Split it, or leave some out.")


class _Scanner:
    """Counts the fields of a serialised message, and of the messages in it, up to the most that there may be."""

    def __init__(self, data: bytes, descriptor: Descriptor) -> None:
        self._data = data
        self._within: list[tuple[Any, int]] = [(descriptor.fields_by_number, len(data))]
        self._at = 0

    def finds_too_many(self) -> bool:
        values = 0
        try:
            while self._within:
                fields, end = self._within[-1]
                if self._at >= end:
                    self._within.pop()
                    continue
                values += self._step(fields)
                if values > MOST_VALUES:
                    return True
        except IndexError:
            pass  # it's cut off, and no message
        return False

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that another byte follows
                return value
            shift += 7
            if shift > 63:  # noqa: PLR2004 - the bits of the longest number
                raise IndexError

    def _step(self, fields: Any) -> int:
        """Skip a field, or enter it if it's a message, and return how many values it counts for."""
        tag = self._varint()
        kind = tag & 7
        if kind == _VARINT:
            self._varint()
        elif kind == _FIXED64:
            self._at += 8
        elif kind == _FIXED32:
            self._at += 4
        elif kind == _BYTES:
            return self._bytes(fields.get(tag >> 3))
        elif kind not in {_GROUP, _END_OF_GROUP}:
            raise IndexError
        return 1

    def _bytes(self, field: Any) -> int:
        length = self._varint()
        if field is not None and field.message_type is not None:
            self._within.append((field.message_type.fields_by_number, min(self._at + length, len(self._data))))
            return 1
        self._at += length
        if field is None or field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            return 1
        return max(1, length // _PACKED_SIZE.get(field.type, 1))
