"""Runs a command and turns every way it can end into an exit status and a sentence on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

import click

from vertex_registry.cli._invocation import Invocation
from vertex_registry.cli._program import cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


OK: Final = 0
REFUSED: Final = 1
INTERRUPTED: Final = 130

# Lines of help have between 50 and 98 columns, as with Click's own rule.
_NARROWEST_HELP: Final = 50
_WIDEST_HELP: Final = 100
_USUAL_WIDTH: Final = 80

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
    with _open_closed_streams(), contextlib.redirect_stdout(sys.stdout), contextlib.redirect_stderr(sys.stderr):
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    invocation = Invocation(sys.argv[1:] if arguments is None else list(arguments))
    try:
        status = _invoke(invocation)
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            _say(error.ctx.get_usage())
        _say(f"error: {_misplaced_option(error) or error.format_message()}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has stopped reading, such as in `| head`.
        _discard(sys.stdout)
        return OK
    except Exception as error:
        if (known := _status_of(error)) is not None:
            _explain(error, invocation)
        elif isinstance(error, OSError) and error.filename is None:  # a file would have a name
            _discard(sys.stdout)
            _say(f"error: The output can't be written: {error.strerror or error}.")
        elif isinstance(error, UnicodeEncodeError):
            lacks = f"Your locale's encoding, {error.encoding}, doesn't have all characters of the output."
            _say(f"error: {lacks} Set a UTF-8 locale, such as LC_ALL=C.UTF-8, or PYTHONUTF8=1.")
        else:
            raise
        return REFUSED if known is None else known
    return status if isinstance(status, int) else OK


def _invoke(invocation: Invocation) -> object:
    """Run a command and return what it returns.

    Raises:
        BrokenPipeError: Nobody reads its output.
    """
    stdout = sys.stdout
    try:
        status = cli.main(
            args=invocation.words,
            prog_name="vertex-registry",
            standalone_mode=False,
            obj=invocation,
            terminal_width=_help_width(),
        )
        sys.stdout.flush()
    except SystemExit as ended:
        if sys.stdout is stdout:
            raise
        sys.stdout = stdout  # Click has put another stream in its place, and would end the process
        raise BrokenPipeError from ended
    return status


@contextlib.contextmanager
def _open_closed_streams() -> Iterator[None]:
    """Replace each standard stream that the caller closed, such as with `<&-`, with an empty one."""
    with contextlib.ExitStack() as stack:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                stack.callback(setattr, sys, name, None)
                stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115  # pathlib takes a while to import
                setattr(sys, name, stack.enter_context(stream))
        yield


def _misplaced_option(error: click.ClickException) -> str:
    """Return what to do with an option that belongs after a command, or an empty text for any other error."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return ""
    if not error.option_name.startswith("--") and not error.possibilities:
        return f"No such option {error.option_name!r}. If it's a name, put -- in front of it, after all options."
    if error.option_name not in _options_below(error.ctx.command):
        return ""
    return f"No such option {error.option_name!r} here. Put it after the command."


def _options_below(command: click.Command) -> set[str]:
    """Return the options of the commands below a group, at any depth."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {option for each in below for parameter in each.params for option in parameter.opts}
    return own.union(*map(_options_below, below))


def _help_width() -> int:
    """Return how many columns help may have. Click would import shutil for it, which takes longer than all of this."""
    columns = os.environ.get("COLUMNS", "")
    available = int(columns) if columns.isdecimal() else 0
    if not available:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # there's no terminal
            available = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]  # see above
    return max(_NARROWEST_HELP, min(available or _USUAL_WIDTH, _WIDEST_HELP) - 2)


def _discard(stream: TextIO) -> None:
    """Send what's left for a stream nowhere, because Python writes it once more at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _say(text: str) -> None:
    """Print a line on stderr, unless nobody reads it."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        _discard(sys.stderr)


def _status_of(error: Exception) -> int | None:
    from vertex_registry import RegistryError  # noqa: PLC0415  # a command that raised it has imported it

    if not isinstance(error, RegistryError):
        return None
    return next((STATUSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in STATUSES), REFUSED)


def _explain(error: Exception, invocation: Invocation) -> None:
    from vertex_registry.cli import _messages  # noqa: PLC0415  # only errors need it

    _say(f"error: {_messages.translate(str(error), invocation)}")
    if (following := _messages.next_command(error, invocation)) is not None:
        _say(f"next:  {following}")
