"""The storage server of the examples ends with the process that started it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
CODE = """
import os
from storage_server import storage_server
with storage_server("models"):
    print(os.environ["STORAGE_EMULATOR_HOST"], flush=True)
    input()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None])
def test_the_server_ends_with_its_process(number: signal.Signals | None) -> None:
    """However the process ends, nobody listens afterwards."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler)\n{CODE}"],
        cwd=EXAMPLES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        if number is None:
            process.stdin.write("\n")
            process.stdin.flush()
        else:
            process.send_signal(number)
        status = process.wait(30)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    assert status == {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: -2, None: 0}[number]
