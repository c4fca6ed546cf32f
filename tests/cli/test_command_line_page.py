"""The tables on the page about the command line agree with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import pytest

from vertex_registry import ModelVersion, RegisteredModel, StageChange, errors
from vertex_registry.cli._commands import STAGES, cli
from vertex_registry.cli._conditions import _OPERATORS, FIELDS
from vertex_registry.cli._output import FORMATS
from vertex_registry.cli._run import INTERRUPTED, OK, REFUSED, STATUSES
from vertex_registry.migration import MigratedVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def table(first: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this heading."""
    lines = PAGE[PAGE.index(f"| {first} |") :].splitlines()[2:]
    rows = lines[: next(position for position, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield each command with its words, without groups that only have subcommands."""
    for name, command in sorted(group.commands.items()):
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join([*path, name]), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def options(command: click.Command) -> set[str]:
    return {name for each in command.params for name in each.opts if name.startswith("--")}


def test_every_command_is_on_the_page() -> None:
    """Each command has a row with its arguments, its own options and its help."""
    common = {row[0].strip("`") for row in table("option")} | {"--format"}
    choices = {"{none|staging|production|archived}": "STAGE", "{bash|zsh|fish}": "SHELL"}
    expected = []
    for words, command in commands(cli):
        shown = [
            each.make_metavar(click.Context(command)) for each in command.params if isinstance(each, click.Argument)
        ]
        name = " ".join([words, *(choices.get(word, word) for word in shown)])
        own = ", ".join(
            f"`{word}`" for each in command.params for word in each.opts if word.startswith("--") and word not in common
        )
        expected.append([f"`{name}`", own, command.get_short_help_str(200)])

    assert table("command") == expected


def test_every_registry_option_is_on_the_page() -> None:
    """Every command that connects to a registry has the options in the table."""
    listed = {row[0].strip("`") for row in table("option")}
    for words, command in commands(cli):
        if words not in {"completion", "emulator", "emulator exec"}:
            assert listed <= options(command), words
    for row in table("option"):
        (option,) = (each for each in cli.commands["duplicates"].params if row[0].strip("`") in each.opts)
        assert row[1].strip("`") in (getattr(option, "help", "") or "")


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("field of a version", ModelVersion),
        ("field of a model", RegisteredModel),
        ("field of a change", StageChange),
        ("field of a line", MigratedVersion),
    ],
)
def test_the_fields_of_json_are_on_the_page(heading: str, record: type) -> None:
    """The table lists exactly the record's fields, which are stable."""
    fields = [field.name for field in attrs.fields(record) if not field.name.startswith("_")]

    assert [row[0].strip("`") for row in table(heading)] == fields


def test_every_exit_status_is_on_the_page() -> None:
    """Each error has the exit status that's on the page, and the page lists every status."""
    rows = {int(row[0]): row[1] for row in table("status")}
    documented = {error: status for status, text in rows.items() for error in re.findall(r"`(\w+Error)`", text)}

    assert documented == STATUSES
    assert set(rows) == {OK, REFUSED, click.UsageError.exit_code, INTERRUPTED, *STATUSES.values()}
    assert all(hasattr(errors, name) for name in STATUSES)


def test_formats_stages_and_keys_are_on_the_page() -> None:
    """The page names every value that the options accept."""
    assert [row[0].strip("`") for row in table("format")] == list(FORMATS)
    for word in (*STAGES, *FIELDS, *(set(_OPERATORS) - {"=="})):
        assert f"`{word}`" in PAGE, word
    for shell in ("bash", "zsh", "fish"):
        assert f"vertex-registry completion {shell}" in PAGE


def test_the_commands_on_the_page_can_be_typed() -> None:
    """Each command in an example exists, and so do its options."""
    blocks = re.findall(r"```(?:shell|console)\n(.*?)```", PAGE, re.DOTALL)
    typed = re.findall(r"(?m)(?<![`:] )(?<!`)vertex-registry ([a-z][^|\n)]*)", "".join(blocks))
    known = dict(commands(cli))
    for line in typed:
        words = line.split(" -- ")[0].split("#")[0].split()
        command = next((known[" ".join(words[:count])] for count in (2, 1) if " ".join(words[:count]) in known), None)
        assert command is not None, line
        assert {word for word in words if word.startswith("--")} <= options(command), line
    assert len(typed) >= 10
