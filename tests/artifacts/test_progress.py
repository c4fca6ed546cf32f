"""When a progress bar is drawn."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.artifacts.tools import HUGE, UPLOAD, python
from vertex_registry.artifacts._progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.usefixtures("storage_emulator")
def test_a_log_file_gets_no_bar(folder: Path, bucket: str) -> None:
    """No bar is drawn if standard error isn't a terminal."""
    run = python(UPLOAD, folder, f"gs://{bucket}/churn-1")

    assert run.stdout.startswith("gs://")
    assert run.stderr == ""


@pytest.mark.usefixtures("storage_emulator")
@pytest.mark.parametrize("error_output", ["None", "type('Mine', (), {'write': len})()", "closed"])
def test_no_standard_error_gets_no_bar(folder: Path, bucket: str, error_output: str) -> None:
    """Files are uploaded even if standard error is missing, closed or odd."""
    code = UPLOAD.replace(
        "print(", f"closed = open(0, 'w', closefd=False); closed.close(); sys.stderr = {error_output}; print("
    )
    run = python(code, folder, f"gs://{bucket}/churn-1")

    assert run.stdout.startswith("gs://"), run


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook, uploads and downloads show a bar that stays and ends at 100 %."""

    class ZMQInteractiveShell:
        """As ipykernel names it."""

    class Shell(ZMQInteractiveShell):
        """As Colab names it."""

    for shell, shown in ((ZMQInteractiveShell(), True), (Shell(), True), (None, False), (object(), False)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        with progress_bar("Uploading", 1) as advance:  # a caller sees nothing but the drawing
            assert (getattr(advance, "__name__", "") == "advance") is shown


@pytest.mark.usefixtures("storage_emulator")
def test_a_terminal_gets_a_bar(folder: Path, bucket: str) -> None:
    """On a terminal a bar shows the progress."""
    drawn = on_a_terminal(lambda drawn: False, folder, f"gs://{bucket}/churn-1")

    assert b"Uploading " in drawn
    assert b"/875k" in drawn
    assert b"Reading " not in drawn  # it takes a moment


@pytest.mark.usefixtures("storage_emulator")
def test_reading_much_gets_a_bar(folder: Path, bucket: str) -> None:
    """A bar shows the progress while a large model is read before the upload."""
    os.truncate(folder / "model.joblib", HUGE)
    drawn = on_a_terminal(lambda drawn: b"Reading " in drawn, folder, f"gs://{bucket}/churn-1")

    assert b"Reading 3 files: " in drawn
    assert b"/1.00T" in drawn


def on_a_terminal(enough: Callable[[bytes], bool], *arguments: object) -> bytes:
    """Return what an upload draws on a terminal, until it ends or enough is drawn."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = [sys.executable, "-c", UPLOAD, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        last = threading.Timer(30, process.kill)  # where nothing is ever drawn
        last.start()
        drawn = b""
        while (process.poll() is None or not drawn) and not enough(drawn):
            try:
                drawn += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        process.kill() if enough(drawn) else process.wait()
        last.cancel()
        last.join()
    os.close(ours)
    return drawn
