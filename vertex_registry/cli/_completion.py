"""The command that prints completion scripts: `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    SHELL is bash, zsh or fish.
    Let the shell run it when it starts: eval "$(vertex-registry completion bash)".
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101  # the choices above
    click.echo(
        kind(
            click.get_current_context().find_root().command, {}, "vertex-registry", "_VERTEX_REGISTRY_COMPLETE"
        ).source()
    )
