"""Ctrl-C: it ends a call, and a wait between two tries, at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

LATER = 1e6  # seconds; longer than anybody waits

# Shells start what runs in the background with Ctrl-C ignored, and every process below inherits that.
SCRIPT = """
import logging, signal, sys
from vertex_registry import RegistryClient, Retry

signal.signal(signal.SIGINT, signal.default_int_handler)
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
retry = Retry(calls=1e6, operations=1e6, first=1e5, most=1e5, random=lambda: 1.0)
with RegistryClient(endpoint=sys.argv[1], retry=retry) as registry:
    try:
        list(registry.list_models())
        print("begun", flush=True)
        registry.register_version("churn", "gs://models/churn/1")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture(params=[0, 10**6])
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with Emulator(polls_until_done=request.param) as emulator:
        yield emulator


def interrupt(endpoint: str, when: str) -> str:
    """Register from a process of its own, interrupt it after that line, and give what it then says."""
    command = [sys.executable, "-u", "-c", SCRIPT, endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if when in line:
                    process.send_signal(signal.SIGINT)
                    break
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return said


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("emulator", [0], indirect=True)
def test_in_the_middle_of_a_call(emulator: Emulator, transport: str) -> None:
    """A call that the server does not answer ends with Ctrl-C."""
    emulator.fail("ListModels", delay=0.0001)
    emulator.fail("ListModels", delay=LATER)

    assert "interrupted" in interrupt(emulator.grpc if transport == "grpc" else emulator.rest, "begun")


@pytest.mark.parametrize("emulator", [0], indirect=True)
def test_between_two_tries(emulator: Emulator) -> None:
    """So does the wait before a call is sent again."""
    emulator.fail("ListModels", delay=0.0001)
    emulator.fail("ListModels", "UNAVAILABLE")

    assert "interrupted" in interrupt(emulator.grpc, "sent again in")


@pytest.mark.parametrize("emulator", [10**6], indirect=True)
def test_while_an_operation_runs(emulator: Emulator) -> None:
    """So does the wait for an operation."""
    assert "interrupted" in interrupt(emulator.grpc, "GetOperation")
