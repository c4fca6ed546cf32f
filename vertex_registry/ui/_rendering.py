"""Turns what a page shows into HTML. Everything is escaped, and only addresses of known schemes become links."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import attrs

from vertex_registry import InvalidArgumentError
from vertex_registry.ui import _charts, _pages

if TYPE_CHECKING:
    import jinja2

    from vertex_registry.ui._pages import Page

_STATIC_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

_AGES: Final = ((365 * 86_400, "y"), (30 * 86_400, "mo"), (86_400, "d"), (3_600, "h"), (60, "min"))
_BUCKET: Final = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/([^\x00-\x20]*))?")
_NO_BUCKET: Final = ".localhost"

# Invisible characters that Unicode counts as letters, marks or symbols: fillers, joiners, variation selectors.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
# The categories of what's drawn over a letter, and how much of it a letter may have. No language needs more.
_ACCENTS: Final = frozenset({"Mn", "Me"})
_MOST_ACCENTS: Final = 5


@functools.cache
def static_files() -> dict[str, tuple[str, bytes]]:
    """Return the type and the content of each static file, by its name."""
    return {
        path.name: (_TYPES[path.suffix], path.read_bytes())
        for path in sorted(_STATIC_FOLDER.iterdir())
        if path.suffix in _TYPES
    }


@attrs.frozen
class Head:
    """The head of each page.

    Attributes:
        registry_name: Which registry it is.
        home: The address that the name leads to, or None.
        nested: Whether the page belongs to a registry, and so has links to its models and changes.
    """

    registry_name: str
    home: str | None
    nested: bool = True


def render(page: Page, now: dt.datetime, head: Head, twin: str | None, root: str) -> str:
    """Return a page as HTML.

    Args:
        page: The page.
        now: The time that ages are counted from.
        head: The head of the page.
        twin: The address of the page as JSON, or None if it has none.
        root: The way from the page back to the place that the site is mounted at, such as ``../``. It may be empty.
    """
    template = environment().get_template(page.template)
    about = {"title": page.title, "now": now, "twin": twin, "head": head, "root": root}
    return template.render(page.data | about)


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates.

    Raises:
        InvalidArgumentError: Jinja2 isn't installed.
    """
    try:
        import jinja2  # noqa: PLC0415  # it's in an extra
    except ImportError as error:
        raise InvalidArgumentError("The page needs Jinja2. Install it: pip install 'vertex-registry[ui]'") from error
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("vertex_registry", "ui/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {
        "visible": visible,
        "named": named,
        "typed": _pages.typed,
        "from": from_root,
        "cell": cell,
        "pretty": pretty,
        "moment": moment,
        "age": age,
        "external": external,
        "number": number,
        "lay_out": _charts.lay_out,
    }
    templates.globals |= {
        "url": url,
        "static": static,
        "STAGES": _pages.STAGES,
        "IN_USE": _pages.IN_USE,
        "ORDERS": _pages.ORDERS,
        "DEEPEST": _pages.DEEPEST,
        "CHANGES_DEEPEST": _pages.CHANGES_DEEPEST,
        "chart_width": _charts.WIDTH,
        "chart_height": _charts.HEIGHT,
        "is_number": _pages.is_number,
    }
    return templates


def url(page: str, /, **parameters: Any) -> str:
    """Return the address of a page, relative to every other page. Empty parameters are left out."""
    pairs = [
        (name, each)
        for name, value in parameters.items()
        for each in (value if isinstance(value, (list, tuple)) else [value])
        if each not in (None, "", False)
    ]
    encoded = urlencode(pairs, quote_via=quote, errors="replace")
    return f"{page or './'}{'?' if encoded else ''}{encoded}"


def static(name: str) -> str:
    """Return the address of a static file, which changes with its content."""
    return f"static/{name}?v={_digest(name)}"


@functools.cache
def _digest(name: str) -> str:
    return hashlib.sha256(static_files()[name][1]).hexdigest()[:12]


def from_root(address: str, root: str) -> str:
    """Return the address that leads from a page below the root to where a relative one leads from the root."""
    return f"{root}{address}" if address.startswith("../") else address


def visible(value: Any) -> str:
    """Return a text with an escape for each character that can't be seen, such as one that turns the text around.

    Accents that pile up over a letter are escaped, too, because they would cover other lines; and so are the blanks of
    a text that has nothing else.
    """
    text = str(value)
    if text.isascii() and text.isprintable() and text.strip():
        return text  # most are like this, and need no look at each letter
    if not text.strip():
        return "".join(map(_escape, text))
    shown: list[str] = []
    accents = _MOST_ACCENTS  # an accent at the beginning would be over what's in front of the text
    for letter in text:
        accents = accents + 1 if unicodedata.category(letter) in _ACCENTS else 0
        is_seen = letter == "\n" or (letter.isprintable() and not _INVISIBLE.match(letter) and accents <= _MOST_ACCENTS)
        shown.append(letter if is_seen or _is_emoji(letter, shown) else _escape(letter))
    return "".join(shown)


def named(name: str, longest: int | None = None) -> str:
    """Return a name in one line, cut if it's long. It may be a link, so there's always something to see."""
    return _cut(visible(name).replace("\n", "\\n") or "(empty)", longest)


def _cut(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if letter == " " else letter.encode("unicode_escape").decode()


def _is_emoji(letter: str, before: list[str]) -> bool:
    """Return whether a letter makes a symbol colorful, and isn't just invisible."""
    return letter == "\ufe0f" and bool(before) and unicodedata.category(before[-1][-1]) == "So"


def number(value: Any) -> str:
    """Return a number for a table or a chart."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cell(value: Any, longest: int = 48) -> str:
    """Return a value in one line, cut if it's long."""
    if value is None:
        return ""
    if _pages.is_number(value):
        text = number(value)
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cut(visible(text.replace("\n", " ")), longest)


def pretty(value: Any) -> str:
    """Return a value in full, JSON on lines of its own."""
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))


def moment(text: str) -> str:
    """Return a time for a person to read."""
    return _parse(text).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(text: str, now: dt.datetime) -> str:
    """Return how long ago a time was, in its largest unit. Clocks differ, so a time may be in the future."""
    seconds = (now - _parse(text)).total_seconds()
    ago = next((f"{int(abs(seconds) // size)} {unit}" for size, unit in _AGES if abs(seconds) >= size), "")
    if not ago:
        return "just now"
    return f"{ago} ago" if seconds > 0 else f"in {ago}"


def _parse(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def external(value: Any) -> str | None:
    """Return the address that a value links to, or None.

    That's an address of the web, or the console's page of a directory in Cloud Storage. Whatever else somebody wrote,
    such as ``javascript:``, is text.
    """
    if not isinstance(value, str) or not value.isprintable() or len(value) > 2000:  # noqa: PLR2004  # browsers' limit
        return None
    if match := _BUCKET.fullmatch(value):
        bucket, path = match[1], match[2] or ""
        # A browser removes the segments that are dots, and would leave the bucket.
        if bucket.endswith(_NO_BUCKET) or not {".", ".."}.isdisjoint(path.split("/")):
            return None
        return f"https://console.cloud.google.com/storage/browser/{bucket}/{quote(path)}".rstrip("/")
    # A browser takes a backslash for a slash, so the host would be another one than the text suggests.
    if not {" ", "\\"}.isdisjoint(value) or not value.startswith(("http://", "https://")):
        return None
    try:
        parts = urlsplit(value)
        sound = parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return None
    return value if sound else None
