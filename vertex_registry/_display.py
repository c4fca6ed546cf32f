"""How records look in a terminal and in a notebook: pure text and HTML, and nothing is fetched.

Other people wrote the names and the metadata, so nothing here is shown without being escaped.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import re
import unicodedata
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What's shown for the author of a change, if nobody knows who it was.
UNKNOWN: Final = "unknown"


def author(by: str | None, changed_at: dt.datetime | None) -> str | None:
    """Return who changed a stage, `UNKNOWN` if only the time is known, or None if this package didn't change it."""
    return by or (None if changed_at is None else UNKNOWN)


_AGES: Final = ((365 * 86_400, "y"), (30 * 86_400, "mo"), (86_400, "d"), (3_600, "h"), (60, "min"))
_GAP: Final = "  "
_WIDEST: Final = 40  # columns of one cell of a table
_LONGEST: Final = 2_000  # characters of one value of a record
_RESOURCE: Final = re.compile(r"projects/([^/]+)/locations/([^/]+)/models/([^/@]+)(?:@([0-9]+))?")

# Colors are those of the page, so it's readable whether the page is light or dark.
_TABLE: Final = "border-collapse:collapse;color:currentColor;font-size:inherit;margin:0.4em 0"
_HEAD: Final = "text-align:left;padding:0.25em 0.8em;border-bottom:1px solid currentColor;white-space:nowrap"
_CELL: Final = "text-align:left;padding:0.25em 0.8em;vertical-align:top;max-width:32em;overflow-wrap:anywhere"
_NAME: Final = "text-align:left;padding:0.25em 0.8em;vertical-align:top;font-weight:normal;opacity:0.75"
_NOTE: Final = "opacity:0.75;margin:0.2em 0.8em"


def age(moment: dt.datetime, now: dt.datetime | None = None) -> str:
    """Return how long ago a time was, in its largest unit, such as ``3d``.

    Args:
        moment: The time.
        now: The time to count from. Defaults to the current time.
    """
    seconds = ((now or dt.datetime.now(dt.UTC)) - moment).total_seconds()
    return next((f"{int(seconds // size)}{unit}" for size, unit in _AGES if seconds >= size), "now")


def console_url(resource_name: str) -> str | None:
    """Return the page of a model or a version in the Google Cloud console, or None if it isn't a resource name."""
    if (match := _RESOURCE.fullmatch(resource_name)) is None:
        return None
    project, location, model, version = (urllib.parse.quote(part or "", safe="") for part in match.groups())
    page = f"https://console.cloud.google.com/vertex-ai/models/locations/{location}/models/{model}"
    return f"{page}{f'/versions/{version}' if version else ''}?project={project}"


def printable(text: str) -> str:
    """Return a text in one line, with an escape in place of each character that a terminal or a page would obey."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def quoted(text: str) -> str:
    """Return a text in quotes, in one line."""
    return f"'{printable(text)}'"


def shown(value: Any) -> str:
    """Return a field's value for a person to read."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return printable(", ".join(value))
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def text_fields(title: str, fields: Mapping[str, Any]) -> str:
    """Return a record as text: a title, and a line for each field."""
    lines = {printable(name): _cut(shown(value), _LONGEST) for name, value in fields.items()}
    width = max(map(len, lines), default=0)
    return "\n".join([title, *(f"{_GAP}{name:<{width}}{_GAP}{value}" for name, value in lines.items())])


def html_fields(title: str, fields: Mapping[str, Any], link: str | None) -> str:
    """Return a record as HTML: a title, a row for each field, and a link to the console if there's one."""
    rows = "".join(
        f'<tr><th scope="row" style="{_NAME}">{_escape(name)}</th>'
        f'<td style="{_CELL}">{html.escape(_cut(shown(value), _LONGEST))}</td></tr>'
        for name, value in fields.items()
    )
    console = f'<div style="{_NOTE}">{_link("Open in the Google Cloud console", link)}</div>' if link else ""
    head = f'<thead><tr><th colspan="2" scope="col" style="{_HEAD}">{_escape(title)}</th></tr></thead>'
    return f'<div><table style="{_TABLE}">{head}<tbody>{rows}</tbody></table>{console}</div>'


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """Return a table as text, with a note below it."""
    cells = [[_cut(printable(cell), _WIDEST) for cell in row] for row in [header, *rows]]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    lines = [
        _GAP.join(cell + " " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, note])


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], links: Sequence[str | None], note: str) -> str:
    """Return a table as HTML, with a note below it. A link is on the first cell of its row."""
    head = "".join(f'<th scope="col" style="{_HEAD}">{_escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL}">{_link(cell, link) if number == 0 and link else _escape(cell)}</td>'
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row, link in zip(rows, links, strict=True)
    )
    return (
        f'<div><table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'<div style="{_NOTE}">{_escape(note)}</div></div>'
    )


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _link(text: str, url: str) -> str:
    style = "color:inherit;text-decoration:underline"
    return f'<a href="{html.escape(url)}" target="_blank" rel="noopener noreferrer" style="{style}">{_escape(text)}</a>'


def _cut(text: str, most: int) -> str:
    if display_width(text) <= most:
        return text
    while display_width(text) > most - 1:
        text = text[: min(len(text) - 1, most)]
    return f"{text}…"


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in _OVER_A_LETTER:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


_OVER_A_LETTER: Final = frozenset({"Mn", "Me"})
