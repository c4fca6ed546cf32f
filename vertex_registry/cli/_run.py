"""Runs a command and turns every way it can end into an exit status and a sentence on stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry.cli._commands import cli
from vertex_registry.cli._messages import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


OK: Final = 0
REFUSED: Final = 1
INTERRUPTED: Final = 130

#: The exit status of each error, by the name of its class, most specific first. Other registry errors exit with 1.
STATUSES: Final = {
    "NotFoundError": 3,
    "PermissionDeniedError": 4,
    "AuthenticationError": 4,
    "ConflictError": 5,
    "AlreadyExistsError": 5,
    "AmbiguousNameError": 5,
    "UnavailableError": 6,
    "OperationTimeoutError": 6,
    "StateUnknownError": 6,
}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    with _open_closed_streams():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    invocation = Invocation(sys.argv[1:] if arguments is None else list(arguments))
    _show_warnings(invocation)
    try:
        status = cli.main(args=invocation.words, prog_name="vertex-registry", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has stopped reading, such as in `| head`.
        _discard_output()
        return OK
    except Exception as error:
        if (known := _status_of(error)) is not None:
            _explain(error, invocation)
        elif isinstance(error, OSError) and error.filename is None:  # a file would have a name
            _discard_output()
            click.echo(f"error: The output can't be written: {error.strerror or error}.", err=True)
        else:
            raise
        return REFUSED if known is None else known
    return status if isinstance(status, int) else OK


@contextlib.contextmanager
def _open_closed_streams() -> Iterator[None]:
    """Replace each standard stream that the caller closed, such as with `<&-`, with an empty one."""
    with contextlib.ExitStack() as stack:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                stack.callback(setattr, sys, name, None)
                setattr(sys, name, stack.enter_context(Path(os.devnull).open(mode, encoding="utf-8")))
        yield


def _discard_output() -> None:
    """Send what's left for stdout nowhere, because Python writes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status_of(error: Exception) -> int | None:
    from vertex_registry import RegistryError  # noqa: PLC0415  # a command that raised it has imported it

    if not isinstance(error, RegistryError):
        return None
    return next((STATUSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in STATUSES), REFUSED)


def _explain(error: Exception, invocation: Invocation) -> None:
    click.echo(f"error: {invocation.translate(str(error))}", err=True)
    if (following := invocation.following(error)) is not None:
        click.echo(f"next:  {following}", err=True)


def _show_warnings(invocation: Invocation) -> None:
    """Show the warnings of the package as one line each on stderr."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(f"{record.levelname.lower()}: {invocation.translate(record.getMessage())}", err=True)

    logger = logging.getLogger("vertex_registry")
    for handler in [each for each in logger.handlers if type(each).__name__ == "Handler"]:
        logger.removeHandler(handler)
    logger.addHandler(Handler(logging.WARNING))

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            click.echo(f"warning: {invocation.translate(str(message))}", err=True)

    warnings.showwarning = show
