"""The command line: ``vertex-registry``. It uses public names only, and imports them when a command runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vertex_registry._deferred import defer_packages

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: What was typed after ``vertex-registry``. Defaults to the arguments of the process.
    """
    try:
        if arguments is None:
            defer_packages()  # this process is our own
        try:
            import click  # noqa: F401, PLC0415  # it's in an extra
        except ImportError:
            missing = "error: The command line needs Click. Install it: pip install 'vertex-registry[cli]'"
            print(missing, file=sys.stderr)  # noqa: T201  # for a person
            sys.exit(1)
        from vertex_registry.cli._run import run  # noqa: PLC0415  # it needs Click
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201  # likewise
        sys.exit(130)
    sys.exit(run(arguments))
