"""A command is imported when somebody uses it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Final

import click
import pytest
from click.testing import CliRunner

from vertex_registry.cli._program import COMMANDS, cli
from vertex_registry.cli._run import run

#: What the program needs before it knows which command was typed. Each of these takes a fraction of a millisecond.
NEEDED: Final = {
    "vertex_registry",
    "vertex_registry._deferred",
    "vertex_registry._version",
    "vertex_registry.cli",
    "vertex_registry.cli._invocation",
    "vertex_registry.cli._program",
    "vertex_registry.cli._run",
}

START: Final = """
import contextlib, os, sys
import click, click._textwrap, click.shell_completion, locale, shlex, shutil  # for its help and completion
before = set(sys.modules)
from vertex_registry.cli import main
for words, typed in (["--help"], ""), (["--version"], ""), ([], "vertex-registry "), ([], "vertex-registry his"):
    sys.argv = ["vertex-registry", *words]
    if typed:
        os.environ |= {"_VERTEX_REGISTRY_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": "1"}
    with contextlib.suppress(SystemExit):
        main()
print(*set(sys.modules) - before, file=sys.stderr)
"""


def test_help_version_and_completion_import_no_command() -> None:
    """They import the table of commands and nothing else, of this package, of others or of Python."""
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)

    assert set(done.stderr.split()) == NEEDED
    assert "\n  history " in done.stdout
    assert ", version " in done.stdout
    assert done.stdout.count("\nplain,history") == 2


#: At a smaller width, Click cuts the help of commands.
WIDE: Final[dict[str, Any]] = {"prog_name": "vertex-registry", "terminal_width": 200}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_repeats_each_docstring(name: str) -> None:
    """The help of the program shows the first sentence of each command's own help."""
    command = cli.commands[name]

    assert command.name == name
    assert command.get_short_help_str(1000) == COMMANDS[name][1]


def test_the_help_is_clicks_own() -> None:
    """The table is shown as Click shows the commands of any group, and completes as they do."""
    eager = click.Group(
        "vertex-registry", dict(cli.commands), help=cli.help, params=cli.params, context_settings=cli.context_settings
    )
    shown = [CliRunner().invoke(group, ["-h"], **WIDE).output for group in (cli, eager)]

    assert shown[0] == shown[1]
    for incomplete in ("", "m", "--", "x"):
        ours, clicks = (group.shell_complete(click.Context(group), incomplete) for group in (cli, eager))
        assert [item.value for item in ours] == [item.value for item in clicks]
        for item, short in zip(ours, clicks, strict=True):
            assert (item.help or "").startswith((short.help or "").removesuffix("..."))  # Click cuts it


@pytest.mark.parametrize("columns", ["", "40", "60", "90", "200", "wide"])
def test_the_width_of_help(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Help is as wide as Click's own rule says, up to 100 columns."""
    monkeypatch.setenv("COLUMNS", columns)
    assert run(["promote", "--help"]) == 0
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["promote", "--help"], "vertex-registry", max_content_width=100)

    assert shown == capsys.readouterr().out
