"""Request pages of a site without a server, and parse them like a browser."""

from __future__ import annotations

import html.parser
import json
from typing import Any, Final

#: Elements without an end tag.
_EMPTY: Final = frozenset({"meta", "link", "input", "br", "line", "polyline"})


class Document(html.parser.HTMLParser):
    """A parsed page: its elements with their attributes, and its text.

    Attributes:
        elements: Each element's name and attributes, in order.
        text: The text between all tags.
        links: The targets of the links.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    @property
    def links(self) -> list[str]:
        return [attributes["href"] or "" for name, attributes in self.elements if name == "a"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class Browser:
    """Requests pages of a site without a server."""

    def __init__(self, site: Any) -> None:
        self.site = site

    def html(self, path: str, query: str = "", status: int = 200) -> Document:
        response = self.site("GET", path, query)
        assert response.status == status, response.body
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        return Document(response.body)

    def json(self, path: str, query: str = "", status: int = 200) -> Any:
        response = self.site("GET", path, query)
        assert response.status == status, response.body
        assert response.headers["Content-Type"] == "application/json"
        return json.loads(response.body)
