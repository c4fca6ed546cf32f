"""The program and the table of its commands.

A module with commands is imported when one of them is used. `--help`, `--version` and the completion of a command's
name need only this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from vertex_registry import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.shell_completion import CompletionItem


#: The commands: the module that has each, and the first sentence of its help.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "alias": ("_aliases", "Set and remove aliases."),
    "completion": ("_completion", "Print the completion script of a shell."),
    "duplicates": ("_models", "List the names that several models have."),
    "emulator": ("_emulator", "Run the local emulator."),
    "history": ("_stages", "Show stage changes, newest first, or what was in a stage at a time."),
    "migrate": ("_migration", "Bring another model registry over."),
    "models": ("_models", "List, show and delete models."),
    "promote": ("_stages", "Put a version in a stage, and archive what was in it."),
    "rollback": ("_stages", "Put back the version that was in a stage before."),
    "ui": ("_site", "Show the registry as a read-only site, until Ctrl-C."),
    "versions": ("_versions", "List, show, register, download, compare and delete versions."),
}


class _Commands(Mapping[str, click.Command]):
    """The commands by name. Reading one imports its module."""

    def __getitem__(self, name: str) -> click.Command:
        module = importlib.import_module(f"vertex_registry.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Program(click.Group):
    """A group that lists its commands without importing them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which group has one of that name."""
        if args[0] == "help":
            ctx.fail("No such command 'help'. Use --help.")
        if args[0] not in COMMANDS and (found := list(_below(args[0]))):
            ctx.fail(f"No such command {args[0]!r}. Use {' or '.join(found)}.")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415  # only a shell needs it

        commands = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]


def _below(name: str) -> Iterator[str]:
    """Yield the commands of that name in a group."""
    for group, command in _Commands().items():
        if isinstance(command, click.Group) and name in command.commands:
            yield f"`{group} {name}`"


@click.group(
    cls=_Program,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="vertex-registry")
def cli() -> None:
    """Work with a Vertex AI Model Registry, or a local one.

    \b
    vertex-registry models list
    vertex-registry versions list churn --show accuracy --sort -accuracy
    vertex-registry promote churn 7 production
    vertex-registry history churn --at 2026-03-01
    """  # noqa: D301  # Click reads the backspace, and doesn't wrap what follows it
