"""Parts of the command line, called in this process: completion, narrow tables, and names of sites and emulators."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from click.shell_completion import BashComplete

from vertex_registry import local_registry
from vertex_registry.cli import _output, _site
from vertex_registry.cli._program import cli
from vertex_registry.emulator import Emulator
from vertex_registry.emulator.__main__ import _site_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the file of a registry with two versions of one model."""
    path = tmp_path_factory.mktemp("completed") / "registry.db"
    with local_registry(path) as registry:
        for number in (1, 2):
            registry.register_version("churn", f"gs://models/churn/{number}", aliases=[f"best-{number}"])
    return str(path)


def completed(words: list[str], beginning: str) -> list[str]:
    """Return what's offered after these words."""
    logger = logging.getLogger("vertex_registry")
    handlers = list(logger.handlers)
    try:
        found = BashComplete(cli, {}, "vertex-registry", "_VERTEX_REGISTRY_COMPLETE").get_completions(words, beginning)
    finally:
        logger.handlers[:] = handlers
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("words", "beginning", "offered"),
    [
        (["versions", "list"], "ch", ["churn"]),
        (["versions", "list"], "x", []),
        (["versions", "show", "churn"], "", ["best-2", "best-1", "default", "2", "1"]),
        (["versions", "show", "churn"], "def", ["default"]),
        (["versions", "show", "nothing"], "", []),
    ],
)
def test_words_that_are_offered(local: str, words: list[str], beginning: str, offered: list[str]) -> None:
    """Models are completed by their name, versions by their aliases and numbers. An error offers nothing."""
    command, *rest = words[2:] or [""]
    typed = [*words[:2], "--local", local, *([command, *rest] if command else [])]

    assert sorted(completed(typed, beginning)) == sorted(offered)


def test_a_registry_that_cannot_be_opened_offers_nothing(tmp_path: Path) -> None:
    """Completion never shows an error."""
    file = tmp_path / "notes.txt"
    file.write_text("milk", encoding="utf-8")

    assert completed(["versions", "list", "--local", str(file)], "") == []


def test_a_table_that_is_too_wide() -> None:
    """The widest columns shrink first, none gets narrower than makes sense, and shortened cells end in an ellipsis."""
    widths = [10, 40, 5]
    _output._shrink_to_fit(widths, 40)
    assert widths == [10, 21, 5]
    _output._shrink_to_fit(widths, 1)
    assert widths == [8, 8, 5]
    assert _output._pad_or_shorten("Müller", 8) == "Müller  "
    assert _output._pad_or_shorten("Müller & Söhne", 8) == "Müller \u2026"


def test_the_name_of_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site is named after its file, or after what names its registry. What's copied from it opens the same one."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    remote = {"local": None, "project": None, "location": "us-east1", "endpoint": None}
    assert _site._name_of({**remote, "local": "registry.db"}) == "registry.db"
    assert _site._name_of(remote) == "acme · us-east1"
    assert _site._opening_of(remote).settings == {"location": "us-east1"}
    opening = _site._opening_of({**remote, "local": "registry.db"})
    assert (opening.path, opening.options) == ("registry.db", ("--local", "registry.db"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("vertex.example.com", False)],  # noqa: S104  # nothing listens
)
def test_hosts_that_others_reach(host: str, loopback: bool) -> None:
    """Only loopback keeps others out."""
    assert _site._is_loopback(host) is loopback


def test_the_site_of_an_emulator() -> None:
    """An emulator's command shows the site of this installation, which it finds by its entry point."""
    with Emulator(rest_port=None) as emulator:
        site = _site_of(emulator)
        status, headers, body = site("GET", "/", "", {})

    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert b"<html" in body
