"""A registry with a few models, and the site about it."""

from __future__ import annotations

import html.parser
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from vertex_registry import local_registry
from vertex_registry.ui import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex_registry import LocalRegistry

#: Elements that have no end.
_EMPTY: Final = frozenset({"meta", "link", "input", "br", "line", "polyline"})


class Document(html.parser.HTMLParser):
    """What a browser would see in a page: its elements with their attributes, and its text.

    Attributes:
        elements: Each element's name and attributes, in order.
        text: All text outside of elements' heads.
        links: Where links lead.
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


@pytest.fixture(scope="module")
def registry() -> Iterator[LocalRegistry]:
    """A registry that the tests of a module only read: two models with versions, and 28 with one version each."""
    with local_registry(actor="ann@example.com") as registry:
        for number in range(28):
            registry.register_version(f"model-{number:02}", f"gs://models/{number}")
        registry.register_version("fraud", "gs://models/fraud/1", metadata={"auc": 0.9}, stage="staging")
        for number in range(1, 61):
            registry.register_version(
                "churn",
                f"gs://models/churn/{number}",
                version_name=f"1.{number}.0",
                metadata={
                    "accuracy": round(0.5 + (number * 37 % 61) / 200, 3),
                    "team": "growth" if number % 2 else "risk",
                    **({"rows": number} if number > 10 else {}),
                    "run": f"https://ci.example.com/runs/{number}",
                    "params": {"depth": 6},
                },
            )
        registry.update_model("churn", description="Which customers leave")
        registry.set_stage("churn", 40, "production", archive_existing=True)
        registry.set_stage("churn", 55, "production", archive_existing=True)
        registry.set_stage("churn", 60, "staging")
        registry.add_aliases("churn", 60, ["candidate"])
        yield registry


@pytest.fixture
def browser(registry: LocalRegistry) -> Browser:
    return Browser(Site(registry, registry_name="acme · us-central1"))
