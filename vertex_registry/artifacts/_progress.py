"""Progress bars, on a terminal and in a notebook."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sized


@contextlib.contextmanager
def progress_bar(
    what: str, size: int, *, shown: bool | None = None, brief: bool = False
) -> Iterator[Callable[[int], None]]:
    """Draw a bar, and yield a function that advances it.

    Args:
        what: What is going on.
        size: How many bytes there are.
        shown: Whether to draw it. Defaults to drawing it on a terminal and in a notebook.
        brief: Whether to draw it only if it takes longer than a moment, and remove it at the end.
    """
    notebook = _in_notebook()
    visible = shown if shown is not None else notebook or _on_terminal()
    tqdm = _tqdm() if visible and size else None
    if tqdm is None:
        yield lambda _: None
        return
    # A notebook is read later as well: there the bar stays, with its result.
    style = {"delay": 1, "leave": False} if brief else {"leave": notebook}
    with tqdm(desc=what, total=size, unit="B", unit_scale=True, unit_divisor=1024, **style) as bar:
        lock = threading.Lock()

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        yield advance


def count_files(items: Sized) -> str:
    """Return "1 file", "2 files", and so on."""
    return f"{len(items):,} file" + ("s" if len(items) != 1 else "")


def _tqdm() -> Any:
    """Return what draws a bar, or None if it isn't installed: a bar is worth no error."""
    try:
        from tqdm import TqdmWarning  # noqa: PLC0415  # of the extra

        with warnings.catch_warnings():
            # In a notebook without ipywidgets it draws the bar in text, and warns of that.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm  # noqa: PLC0415
    except ImportError:
        return None
    return tqdm


def _on_terminal() -> bool:
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # none, as under pythonw; a caller's own; a closed one
        return False


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    # Colab's shell is a class of its own, below the one that every kernel has.
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
