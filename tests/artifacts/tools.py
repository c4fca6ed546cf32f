"""Shared functions of the tests of artifacts: a clock, folders, and processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from vertex_registry._records import Retry

if TYPE_CHECKING:
    from pathlib import Path

#: The most bytes of one request in these tests.
CHUNK: Final = 256 * 1024

#: The size of a file that takes no room on the disk, and a quarter of an hour and more to read.
HUGE: Final = 2**40

#: Uploads a folder, in a process of its own.
UPLOAD: Final = (
    "import sys; from vertex_registry.artifacts import Storage, scan; "
    "print(Storage().upload(scan(sys.argv[1]), sys.argv[2]))"
)


class Clock:
    """A clock that only moves when its `sleep` is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds

    def retry(self) -> Retry:
        """Return the limits of a client that reads the time from here."""
        return Retry(sleep=self.sleep, random=lambda: 1.0, clock=lambda: self.now)

    def once(self) -> Retry:
        """Return limits that allow no retry, but leave a busy machine time to answer."""
        return Retry(
            call_timeout=20,
            initial_backoff=30,
            max_backoff=30,
            sleep=self.sleep,
            random=lambda: 1.0,
            clock=lambda: self.now,
        )


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder, and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error(message: str) -> bytes:
    """Return the body of an error."""
    return json.dumps({"error": {"code": 0, "message": message}}).encode()


def python(code: str, *arguments: object, timeout: float = 60, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **settings)


def alter(path: Path) -> None:
    """Change two bytes of a file, and keep its size."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 2)
        file.write(b"[]")
