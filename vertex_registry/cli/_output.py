"""What a command prints: a table for people, JSON or ids for programs. Data goes to stdout, all else to stderr."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry._display import author, display_width, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vertex_registry import ModelVersion

FORMATS: Final = ("table", "json", "ids")

_GAP: Final = "  "
_NARROWEST: Final = 8


def show_list(
    output: str, items: Iterable[Any], columns: dict[str, Callable[[Any], Any]], identify: Callable[[Any], str]
) -> None:
    """Print records: a table of these columns, a JSON array of whole records, or an id a line."""
    if output == "json":
        show_json([as_json(item) for item in items])
    elif output == "ids":
        for item in items:
            click.echo(printable(identify(item)))
    else:
        rows = [[_cell(value(item)) for value in columns.values()] for item in items]
        _print_table(list(columns), rows)


def show_one(output: str, item: Any, fields: dict[str, Any], identity: str) -> None:
    """Print one record: a line for each field, a JSON object of the whole record, or its id."""
    if output == "json":
        show_json(as_json(item))
    elif output == "ids":
        click.echo(printable(identity))
    else:
        width = max(map(len, fields))
        for name, value in fields.items():
            _echo(f"{name:<{width}}{_GAP}{_cell(value)}".rstrip())


def show_version(version: ModelVersion, output: str) -> None:
    """Print one version."""
    fields: dict[str, Any] = {
        "model": version.name,
        "version": version.version,
        "name": version.version_name,
        "stage": str(version.stage),
        "changed by": author(version.stage_changed_by, version.stage_changed_at),
        "changed at": version.stage_changed_at,
        "aliases": version.aliases,
        "description": version.description,
        "more metadata": version.metadata_file,
        "artifact": version.artifact_uri,
        "image": None if version.container is None else version.container.image,
        "created": version.created_at,
        "resource": version.resource_name,
        **{f"metadata.{key}": value for key, value in version.metadata.items()},
    }
    shown = {key: value for key, value in fields.items() if value not in (None, "", ())}
    show_one(output, version, shown, version.version)


def show_json(value: Any) -> None:
    """Print a value as JSON, with an escape for each character that stdout doesn't have."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    click.echo(text)


def as_json(item: Any) -> Any:
    """Return a record as JSON has it."""
    return item.to_dict() if hasattr(item, "to_dict") else item


def local_time(moment: dt.datetime, *, exact: bool = False) -> str:
    """Return a time in the machine's time zone, with its offset.

    Args:
        moment: The time.
        exact: Whether to show microseconds.
    """
    return moment.astimezone().isoformat(sep=" ", timespec="microseconds" if exact else "seconds")


def note(text: str) -> None:
    """Print a remark for a person, on stderr. It may have names in it that a terminal would take for commands."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=True)


def uses_color() -> bool:
    """Return whether stdout is a terminal that may be coloured (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _echo(line: str) -> None:
    """Print a line of a table, with an escape for each character that stdout doesn't have."""
    click.echo(line.encode(_encoding(), "backslashreplace").decode(_encoding()))


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(display_width, column)) for column in zip(header, *rows, strict=True)]
    if sys.stdout.isatty():
        _shrink_to_fit(widths, shutil.get_terminal_size().columns)
    title = _line([name.upper() for name in header], widths)
    _echo(click.style(title, bold=True) if uses_color() else title)
    for row in rows:
        _echo(_line(row, widths))


def _shrink_to_fit(widths: list[int], available: int) -> None:
    """Shrink the widest column until the table fits, or every column is as narrow as makes sense."""
    available -= len(_GAP) * (len(widths) - 1)
    while sum(widths) > available and max(widths) > _NARROWEST:
        widest = widths.index(max(widths))
        widths[widest] = max(_NARROWEST, widths[widest] - (sum(widths) - available))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(_pad_or_shorten(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _pad_or_shorten(cell: str, width: int) -> str:
    if display_width(cell) > width:
        while display_width(cell) > width - 1:
            cell = cell[:-1]
        cell += "…"
    return cell + " " * (width - display_width(cell))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return local_time(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return printable(", ".join(value))
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
