"""Values in error messages: in quotes, in one line, and shortened if they're long; and texts with nothing to see."""

from __future__ import annotations

import reprlib
from typing import Final

_MOST: Final = 160  # characters of a string, which a URI in a message usually has
_END: Final = 40  # characters of its end
_MOST_BITS: Final = 128  # of an int


def quote(value: object) -> str:
    """Return a value's ``repr``, shortened so that a message with it stays readable.

    >>> quote("gs://models/churn")
    "'gs://models/churn'"
    """
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a number of {value.bit_length()} bits"  # its digits may be more than Python converts
    return shorten(_REPR.repr(value))


def is_blank(text: str) -> bool:
    """Return whether a text has nothing to see, which is more likely an unset variable than meant."""
    return not any(letter.isprintable() and not letter.isspace() for letter in text)


def shorten(text: str, most: int = _MOST) -> str:
    """Return a text with dots in place of its middle, if it's longer than so many characters."""
    return text if len(text) <= most else f"{text[: most - _END - 3]}...{text[-_END:]}"


_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _MOST
