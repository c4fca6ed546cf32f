"""Ctrl-C while files are read, sent or waited for."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.artifacts.tools import HUGE, UPLOAD, error, python
from vertex_registry import _waiting
from vertex_registry._records import Retry
from vertex_registry.artifacts import Storage, _parallel
from vertex_registry.artifacts._parallel import run_in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.storage.server import Proxy


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle Ctrl-C, even if the shell has made this process ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(code: str, path: Path, *arguments: object) -> str:
    """Send Ctrl-C to a process in the middle of reading a file, and return what it printed."""
    command = [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler); {code}"]
    with subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not reads(process.pid, path):
                pass
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=30)[1]
        finally:
            process.kill()


def reads(pid: int, path: Path) -> bool:
    """Return whether a process is well into a file, so its main thread waits for the others."""
    for file in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if file.readlink() == path:
                position = Path(f"/proc/{pid}/fdinfo/{file.name}").read_text(encoding="utf-8").split()[1]
                return int(position) > 2**26
    return False


@pytest.mark.usefixtures("storage_emulator")
def test_ctrl_c_ends_a_checksum(folder: Path, bucket: str) -> None:
    """Ctrl-C ends an upload while it still computes the checksum of a large file."""
    os.truncate(folder / "model.joblib", HUGE)
    said = interrupted(UPLOAD, folder / "model.joblib", folder, f"gs://{bucket}/churn-1")

    assert said.splitlines()[-1] == "KeyboardInterrupt"


def test_ctrl_c_ends_a_comparison(
    make: Callable[..., Storage], stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends a download that compares the cache with the bucket."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = make(cache=tmp_path / "vertex-registry").download(stored)
    record = kept.with_name(f"{kept.name}.json")
    record.write_text(record.read_text(encoding="utf-8").replace("896000", str(HUGE)), encoding="utf-8")
    os.truncate(kept / "model.joblib", HUGE)
    code = "import sys; from vertex_registry.artifacts import Storage; Storage().download(sys.argv[1])"
    said = interrupted(code, kept / "model.joblib", stored)

    assert said.splitlines()[-1] == "KeyboardInterrupt"


def test_a_failure_ends_the_waits_of_others(proxy: Proxy, bucket: str, folder: Path) -> None:
    """If one file fails, or you press Ctrl-C, the other files stop waiting for their retry."""
    waits = threading.Event()
    proxy.fail("POST", "metadata.json", first=waits.set, status=503, body=error("Later."))
    proxy.fail("PUT", first=lambda: waits.wait(20))
    proxy.fail("PUT", after=2, status=403, body=error("No."))
    code = UPLOAD.replace(
        "Storage()", "Storage(chunk=2**18, retry=Retry(call_timeout=1e6, initial_backoff=1e5, max_backoff=1e5))"
    )
    run = python(f"from vertex_registry import Retry; {code}", folder, f"gs://{bucket}/churn-1", timeout=60)

    assert "PermissionDeniedError" in run.stderr.splitlines()[-1]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_just_before_a_wait_is_handled() -> None:
    """Ctrl-C is handled even if the main thread has just begun to wait and isn't woken."""
    heeded: list[bool] = []

    def work(_: int, stopped: threading.Event) -> None:
        signal.raise_signal(signal.SIGINT)  # which is noted in this thread, and interrupts no wait of another one
        heeded.append(stopped.wait(20))

    with pytest.raises(KeyboardInterrupt):
        run_in_parallel([1], work, 8)  # no transfer can be met at that moment for sure

    assert heeded == [True]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_wait_before_a_retry(proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """Ctrl-C also ends the main thread's own wait before a retry."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            if sys._current_frames()[main].f_code.co_filename == _waiting.__file__:
                signal.raise_signal(signal.SIGINT)
                return

    def random() -> float:
        threading.Thread(target=interrupt, daemon=True).start()
        return 1.0

    main = threading.get_ident()
    proxy.fail("GET", status=503, body=error("Later."))
    storage = Storage(retry=Retry(call_timeout=60, initial_backoff=20, max_backoff=20, random=random))
    gc.disable()  # a collection during sys._current_frames() can deadlock (CPython gh-106883)
    try:
        with pytest.raises(KeyboardInterrupt):
            storage.download(stored, tmp_path / "dest")
    finally:
        over.set()
        gc.enable()
        storage.close()

    assert len(proxy.seen) == 1


OURS = {module.__file__ for module in (_parallel, _waiting, threading, contextlib)}


def after(steps: int, *, begun: bool) -> list[Any]:  # noqa: C901  # it says so at each instruction
    """Return the outcome of parallel work if Ctrl-C comes after this many instructions of the main thread.

    Instructions of the threading library count too. Garbage collection is off, because finalizers use that library and
    swallow errors. The work ends when it's stopped, or when the main thread waits for it.

    Args:
        steps: The number of instructions.
        begun: Whether to wait until a started thread has begun its work.
    """
    waits, works = threading.Event(), threading.Event()
    came: list[Any] = []
    running: set[int] = set()

    def work(item: int, stopped: threading.Event) -> int:
        running.add(item)
        works.set()
        while not stopped.wait(0.001) and not waits.is_set():
            pass
        running.discard(item)
        return item

    def call() -> None:
        left, others = steps, False

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in OURS:
                return None
            frame.f_trace_opcodes = True
            left -= event == "opcode"
            if left == -1:
                left = -2
                if others and begun:
                    works.wait(20)
                raise KeyboardInterrupt
            return trace

        def profile(_: FrameType, event: str, called: Any) -> None:
            nonlocal others
            others |= event == "c_call" and called.__name__ == "start_new_thread"
            if event == "c_call" and called.__name__ == "get" and left >= 0:
                waits.set()

        gc.disable()
        sys.setprofile(profile)
        sys.settrace(trace)
        try:
            came.append(run_in_parallel([1, 2, 3], work, 2))  # a real transfer can't show what it does to its caller
        except KeyboardInterrupt:
            came.append("interrupted")
        finally:
            came.append(len(running))
            sys.settrace(None)
            sys.setprofile(None)
            gc.enable()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    return came


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_may_come_at_any_moment(*, begun: bool) -> None:
    """Ctrl-C between any two instructions ends the work, and no thread keeps running or waits forever."""
    steps = 0
    while (came := after(steps, begun=begun)) == ["interrupted", 0]:
        steps += 1

    assert came == [[1, 2, 3], 0], f"after {steps} instructions"
    assert steps > 50
