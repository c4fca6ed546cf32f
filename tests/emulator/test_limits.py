"""What one client can cost the others: descriptors, time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "vertex_registry.emulator", "--grpc-port", "0", "--rest-port", "0"]


# --- descriptors -------------------------------------------------------------


class Process:
    """An emulator in a process that may open few files."""

    def __init__(self, process: subprocess.Popen[str], rest: str) -> None:
        self.process = process
        self.rest = rest
        host, _, port = rest.removeprefix("http://").partition(":")
        self.address = (host, int(port))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def seconds_by_thread(self) -> dict[str, float]:
        """The seconds of processor time that each of its threads has used."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return {task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks.iterdir()}


@pytest.fixture(name="process")
def _process() -> Iterator[Process]:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        served = Process(process, json.loads(process.stdout.readline())["rest"])
        assert requests.get(f"{served.rest}/emulator/health", timeout=60).ok
        limit = served.descriptors() + 20
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        yield served
        process.terminate()


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_connections_that_do_nothing_give_way(process: Process, sent: bytes) -> None:
    """More of them than the process may have descriptors don't keep it from answering."""
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(socket.create_connection(process.address, timeout=30))
            connection.sendall(sent)
        assert requests.get(f"{process.rest}/emulator/health", timeout=30).ok
    assert process.process.poll() is None


def test_connections_that_are_kept_give_way_the_oldest_first(process: Process) -> None:
    """Those of clients that asked something and may ask again; one that was used just now is kept."""
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(requests.Session()) for _ in range(25)]
        for session in old:
            assert session.get(f"{process.rest}/emulator/health", timeout=30).ok
        kept = socket.create_connection(process.address, timeout=30)
        stack.enter_context(kept)
        request = f"GET /emulator/health HTTP/1.1\r\nHost: {process.rest.removeprefix('http://')}\r\n\r\n".encode()
        for session in old[:3]:
            kept.sendall(request)
            assert kept.recv(65536).startswith(b"HTTP/1.1 200")
            assert requests.get(f"{process.rest}/emulator/health", timeout=30).ok
            assert session.get(f"{process.rest}/emulator/health", timeout=30).ok  # a client connects anew


def test_a_server_that_can_accept_nothing_rests(process: Process) -> None:
    """While every connection has a request that is being carried out, others wait, and no thread is busy with that."""
    count, delay = 40, 3.0
    planned = {"rpc": "ListModels", "delay": delay, "times": count}
    assert requests.post(f"{process.rest}/emulator/faults", json=planned, timeout=30).ok
    host = process.rest.removeprefix("http://")
    lines = ["GET /v1/projects/p/locations/l1/models HTTP/1.1", f"Host: {host}", "Connection: close", "", ""]
    with contextlib.ExitStack() as stack:
        begin, before = time.monotonic(), process.seconds_by_thread()
        busy = [stack.enter_context(socket.create_connection(process.address, timeout=60)) for _ in range(count)]
        for connection in busy:
            connection.sendall("\r\n".join(lines).encode())

        answers = [connection.recv(65536) for connection in busy]

        lasted, after = time.monotonic() - begin, process.seconds_by_thread()
    used = max(seconds - before.get(thread, 0) for thread, seconds in after.items())
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * count
    assert lasted > delay
    assert used < 0.15
    assert requests.get(f"{process.rest}/emulator/health", timeout=30).ok
