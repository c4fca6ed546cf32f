"""The commands that run an emulator: `emulator`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import click

from vertex_registry.cli._invocation import Invocation
from vertex_registry.cli._text import FILE
from vertex_registry.cli._warnings import show_warnings


class _Emulator(click.Group):
    """A group that passes everything but its own commands to the emulator."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and (args[0] in self.commands or args[0] in ctx.help_option_names):
            return super().parse_args(ctx, args)
        ctx.args = list(args)
        return ctx.args


@click.group(cls=_Emulator, invoke_without_command=True, options_metavar="[EMULATOR OPTIONS]")
@click.pass_context
def emulator(ctx: click.Context) -> None:
    """Run the local emulator.

    The options are those of `python -m vertex_registry.emulator`, such as --rest-port 8471 --data registry.db.
    """
    if ctx.invoked_subcommand is None:
        command = [sys.executable, "-m", "vertex_registry.emulator", *ctx.args]
        os.execv(sys.executable, command)  # noqa: S606  # it takes this process over, signals and all


@emulator.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--data", type=FILE, help="Keep the registry in this file.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(command: tuple[str, ...], data: str | None) -> int:
    """Run COMMAND with an emulator of its own, and exit with its status.

    The emulator serves gRPC on a free port, and VERTEX_AI_EMULATOR_HOST names it.
    """
    from vertex_registry.emulator import DataFileError, Emulator  # noqa: PLC0415  # it's in an extra, and large

    if (invocation := click.get_current_context().find_object(Invocation)) is not None:
        show_warnings(invocation)
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(Emulator(data, rest_port=None))
        except (DataFileError, ValueError, OSError) as error:
            raise click.ClickException(str(error)) from None
        environment = {"GOOGLE_CLOUD_PROJECT": "local-project", **os.environ, "VERTEX_AI_EMULATOR_HOST": running.grpc}
        try:
            process = subprocess.Popen(command, env=environment)  # noqa: S603  # the user typed it
        except OSError as error:
            raise click.UsageError(f"{command[0]!r} can't be run: {error.strerror}.") from None
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: process.send_signal(received))
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the terminal has sent it to the command too
                status = process.wait()
                break
        running.forget_faults()
    return 128 - status if status < 0 else status
