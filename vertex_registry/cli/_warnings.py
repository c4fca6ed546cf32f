"""Show the package's warnings as one line each on stderr."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import click

from vertex_registry.cli import _messages

if TYPE_CHECKING:
    from vertex_registry.cli._invocation import Invocation


class _Handler(logging.Handler):
    """Shows what the package logs."""

    def __init__(self, invocation: Invocation) -> None:
        super().__init__(logging.WARNING)
        self._invocation = invocation

    def emit(self, record: logging.LogRecord) -> None:
        _show(record.levelname.lower(), record.getMessage(), self._invocation)


def show_warnings(invocation: Invocation) -> None:
    """From now on, show warnings as they read at a shell."""
    logger = logging.getLogger("vertex_registry")
    for handler in [each for each in logger.handlers if isinstance(each, _Handler)]:
        logger.removeHandler(handler)
    logger.addHandler(_Handler(invocation))

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            _show("warning", str(message), invocation)

    warnings.showwarning = show


def _show(level: str, message: str, invocation: Invocation) -> None:
    click.echo(f"{level}: {_messages.translate(message, invocation)}", err=True)
