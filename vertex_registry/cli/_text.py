"""Texts that were typed: neither empty nor broken by the locale."""

from __future__ import annotations

import sys
from typing import Any, Final

import click


def decoded(text: str) -> str:
    """Return a text from the command line, or refuse it if the locale's encoding hasn't all of its characters."""
    try:
        text.encode()
    except UnicodeEncodeError:  # Python keeps a byte that it can't decode as half of a surrogate pair
        encoding = sys.getfilesystemencoding()
        remedy = (
            "Use a terminal that sends UTF-8."
            if encoding == "utf-8"
            else "Set a UTF-8 locale, such as LC_ALL=C.UTF-8, or PYTHONUTF8=1."
        )
        raise click.BadParameter(f"{text!r} isn't text in the encoding of your locale, {encoding}. {remedy}") from None
    return text


class Text(click.ParamType):  # type: ignore[type-arg]  # Click 8.2 has a class without arguments
    """Text that the command can use: an empty one is more likely an unset variable than meant.

    Args:
        may_be_empty: Whether an empty text has a meaning.
    """

    name = "text"

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self._may_be_empty = may_be_empty

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip() and not self._may_be_empty:
            self.fail("It's empty.", param, ctx)
        return decoded(text)


class Path(click.Path):
    """A path that isn't empty. It may have bytes that aren't text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("It's empty.", param, ctx)
        return super().convert(value, param, ctx)


TEXT: Final = Text()
FILE: Final = Path(dir_okay=False)
