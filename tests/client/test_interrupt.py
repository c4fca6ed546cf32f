"""Ctrl-C ends a call, and a wait between two attempts, at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vertex_registry import RegistryClient, _waiting
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

LATER = 1e6  # seconds; longer than anybody waits

LISTING = "list(registry.list_versions())"
DELETING = "registry.delete_version('churn', 2)"
REGISTERING = "registry.register_version('churn', 'gs://models/churn/1')"
WAITS = ("/vertex_registry/", "/grpc/")
# Shells start what runs in the background with Ctrl-C ignored, and every process below inherits that. A signal that
# another thread is given interrupts no wait of the main one, nor does one that comes just before it.
SCRIPT = """
import gc, logging, signal, sys, threading
from vertex_registry import RegistryClient, Retry, _deferred

_deferred.defer_packages()  # which takes most of the time of a start

def interrupt():
    main = threading.main_thread().ident
    if sys.stdin.readline():
        gc.disable()  # a collection while the frames are asked for can lock everybody out (CPython gh-106883)
        while not any(package in sys._current_frames()[main].f_code.co_filename for package in {waits}):
            pass  # it is still writing the line
        signal.raise_signal(signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
retry = Retry(call_timeout=1e6, operation_timeout=1e6, initial_backoff=1e5, max_backoff=1e5, random=lambda: 1.0)
with RegistryClient(endpoint=sys.argv[1], retry=retry) as registry:
    try:
        list(registry.list_models())
        print("begun", flush=True)
        {call}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture(params=[0, 10**6])
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with Emulator(polls_until_done=request.param) as emulator:
        yield emulator
        emulator.forget_faults()  # which of them are met depends on when Ctrl-C comes


def interrupt(endpoint: str, when: str, call: str = REGISTERING, thread: str = "another") -> str:
    """Run code in a process, send it Ctrl-C after it prints a certain line, and return its output."""
    command = [sys.executable, "-u", "-c", SCRIPT.format(call=call, waits=WAITS), endpoint]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            for line in process.stdout:
                if when in line:
                    break
            if thread == "main":
                process.send_signal(signal.SIGINT)
            else:
                process.stdin.write("\n")
                process.stdin.flush()
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()
    return said


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("emulator", [0], indirect=True)
def test_in_the_middle_of_a_call(emulator: Emulator, transport: str) -> None:
    """Ctrl-C ends a call that the server doesn't answer."""
    emulator.fail("ListModels", delay=0.0001)
    emulator.fail("ListModels", delay=LATER)

    assert "interrupted" in interrupt(emulator.grpc if transport == "grpc" else emulator.rest, "begun")


@pytest.mark.parametrize("thread", ["main", "another"])
@pytest.mark.parametrize("emulator", [0], indirect=True)
def test_before_a_retry(emulator: Emulator, thread: str) -> None:
    """Ctrl-C ends the wait before a retry, whichever thread gets the signal."""
    emulator.fail("ListModels", delay=0.0001)
    emulator.fail("ListModels", "UNAVAILABLE")

    assert "interrupted" in interrupt(emulator.grpc, "sent again in", thread=thread)


@pytest.mark.parametrize("emulator", [10**6], indirect=True)
def test_while_an_operation_runs(emulator: Emulator) -> None:
    """Ctrl-C ends the wait for an operation, too."""
    assert "interrupted" in interrupt(emulator.grpc, "GetOperation")


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("emulator", [0], indirect=True)
@pytest.mark.parametrize(("rpc", "call"), [("ListModelVersions", LISTING), ("GetModel", DELETING)])
def test_while_threads_send_requests(emulator: Emulator, transport: str, rpc: str, call: str) -> None:
    """Ctrl-C ends a call that uses many threads. The process ends too, without waiting for them."""
    with RegistryClient(endpoint=emulator.grpc) as registry:
        for _ in range(2):
            registry.register_version("churn", "gs://models/churn/1")
        registry.register_version("fraud", "gs://models/fraud/1")
    if rpc == "GetModel":
        emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION")  # then the client lists the other versions
        emulator.fail(rpc, delay=0.0001, times=4)  # the version before and after that, and the newest ones
    emulator.fail(rpc, "UNAVAILABLE", times=100)

    said = interrupt(emulator.grpc if transport == "grpc" else emulator.rest, "sent again in", call)
    assert "interrupted" in said


@pytest.mark.parametrize("error", [IndexError("a"), ValueError("b"), SystemExit("c")])
def test_an_error_of_the_working_thread_is_raised(error: BaseException) -> None:
    """An error in the thread that does the work is raised in the caller's."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        _waiting.run_in_thread(fail, lambda: None)
    assert caught.value is error
    assert _waiting.run_in_thread(lambda: 1, lambda: None) == 1
