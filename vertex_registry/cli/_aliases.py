"""The commands about aliases: `alias`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vertex_registry.cli import _output
from vertex_registry.cli._options import connected, formatted, model_name, version_of
from vertex_registry.cli._text import TEXT

if TYPE_CHECKING:
    from vertex_registry import RegistryClient


@click.group()
def alias() -> None:
    """Set and remove aliases."""


@alias.command("set")
@model_name
@version_of("version")
@click.argument("aliases", type=TEXT, nargs=-1, required=True)
@connected
@formatted
def set_alias(registry: RegistryClient, name: str, version: str, aliases: tuple[str, ...], output: str) -> None:
    """Add aliases to a version. An alias that another version has moves here."""
    _output.show_version(registry.add_aliases(name, version, aliases), output)


@alias.command("remove")
@model_name
@version_of("version")
@click.argument("aliases", type=TEXT, nargs=-1, required=True)
@connected
@formatted
def remove_alias(registry: RegistryClient, name: str, version: str, aliases: tuple[str, ...], output: str) -> None:
    """Remove aliases from a version."""
    found = registry.get_version(name, version)
    _output.show_version(registry.remove_aliases(name, found, aliases), output)
    for each in dict.fromkeys(aliases):
        if each not in found.aliases:
            _output.note(f"version {found.version} didn't have the alias {each!r}")
