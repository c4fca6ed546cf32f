"""The documentation's site: every page is in the menu, and every public name has its place in the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import vertex_registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages(menu: list[Any]) -> list[str]:
    """Return the pages of a menu, in order."""
    found: list[str] = []
    for entry in menu:
        (target,) = entry.values()
        found += pages(target) if isinstance(target, list) else [target]
    return found


def test_every_page_is_in_the_menu_once() -> None:
    """A page that's in no menu can't be found, and a menu names no page twice."""
    menu = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])

    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_public_name_is_in_the_reference_once() -> None:
    """The reference shows the docstring of each name that can be imported from the package."""
    shown = [
        name
        for page in DOCS.glob("api/*.md")
        for name in re.findall(r"(?m)^::: vertex_registry\.(\S+)", page.read_text())
    ]

    assert sorted({*vertex_registry.__all__} - {"__version__"}) == sorted(name for name in shown if "." not in name)


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), ROOT / "README.md"], ids=lambda page: page.name)
def test_links_stay_in_the_docs(page: Path) -> None:
    """A page of the site links to no file outside, which the site wouldn't have; the README's links exist."""
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve()
        assert linked.exists(), target
        if page.name != "README.md":
            assert linked.is_relative_to(DOCS), target
