"""Run the commands of console blocks in the docs, and compare the output with the page."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from vertex_registry.cli._run import run
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
BLOCKS: Final = {
    name: blocks
    for name, page in PAGES.items()
    if (blocks := re.findall(r"(?m)^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL))
}
#: Pages whose blocks other tests run, because they need gcloud, openssl and curl, or a server that must be stopped.
TESTED_ELSEWHERE: Final = {"emulator.md", "ui.md"}


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a block with its output."""
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - TESTED_ELSEWHERE))
def test_commands_print_what_is_shown(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command prints what the page shows. The page's emulator runs in this process, on other ports."""
    run_count = 0
    with Emulator() as emulator:
        for command, shown in (each for block in BLOCKS[name] for each in commands(block)):
            words = shlex.split(command)
            if words[0] == "export":
                for setting in words[1:]:
                    variable, _, value = setting.partition("=")
                    monkeypatch.setenv(variable, value.replace("127.0.0.1:8470", emulator.grpc))
            elif words[0] == "vertex-registry":
                assert "VERTEX_AI_EMULATOR_HOST" in os.environ, "the page doesn't say which registry"
                run(words[1:])
                printed = capsys.readouterr()
                assert printed.err + printed.out == shown, command
                run_count += 1
            else:
                assert command == "python -m vertex_registry.emulator &"
    assert run_count


def test_pages_that_are_tested_elsewhere_have_blocks() -> None:
    """A page in TESTED_ELSEWHERE exists and has console blocks."""
    assert set(BLOCKS) >= TESTED_ELSEWHERE
