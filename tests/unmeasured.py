"""Choose the tests that run without measuring coverage, because measured tests reach their lines.

``python -m tests.unmeasured`` measures every test, which takes a quarter of an hour, and writes ``unmeasured.txt``.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    Reached = frozenset[tuple[str, int, int]]

FILE: Final = Path(__file__).with_name("unmeasured.txt")

#: The environment variable that makes every test measured. Its value is the folder that times are written to.
EVERY: Final = "MEASURE_EVERY_TEST"

#: How many branches a test must add in a second of processor time, to be worth measuring.
WORTH: Final = 1.0


def name_of(nodeid: str) -> str:
    """Return the name of a test without its parameters."""
    return nodeid.partition("[")[0]


def unmeasured() -> frozenset[str]:
    """Return the names of the tests that run without measuring."""
    return frozenset() if EVERY in os.environ else frozenset(FILE.read_text(encoding="utf-8").splitlines())


def choose(reached: Mapping[str, Reached], seconds: Mapping[str, float]) -> Iterable[str]:
    """Yield the tests to measure: always the one that adds most for its time, until that isn't worth it any more."""
    covered: set[tuple[str, int, int]] = set()
    left = dict(reached)

    def worth(test: str) -> float:
        return len(left[test] - covered) / (seconds[test] + 0.002)

    while left:
        best = max(sorted(left), key=worth)
        if worth(best) < WORTH:
            return
        covered |= left.pop(best)
        yield best


class Times:
    """A plugin of pytest that writes down how much processor time each test takes."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder, f"{os.getpid()}.jsonl")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Write down the time of a test that's measured, with its fixtures."""
        if item.get_closest_marker("unmeasured") is not None:
            return (yield)
        start = time.process_time()
        try:
            return (yield)
        finally:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([item.nodeid, time.process_time() - start]) + "\n")


def _reached(file: Path) -> dict[str, Reached]:
    """Return what each test reached, by the name of the test."""
    data = coverage.CoverageData(str(file))
    data.read()
    found: dict[str, set[tuple[str, int, int]]] = collections.defaultdict(set)
    for context in data.measured_contexts():
        nodeid, separator, _ = context.rpartition("|")
        if separator:
            data.set_query_context(context)
            for module in data.measured_files():
                found[name_of(nodeid)].update((module, *arc) for arc in data.arcs(module) or ())
    return {test: frozenset(arcs) for test, arcs in found.items()}


def main() -> None:
    """Measure every test, and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "coverage")
        command = [sys.executable, "-m", "pytest", "-n", "2", "--cov", "--cov-report=", "--cov-context=test", "tests"]
        environment: dict[str, Any] = os.environ | {EVERY: folder, "COVERAGE_FILE": str(data)}
        subprocess.run(command, env=environment, check=True)
        seconds: collections.Counter[str] = collections.Counter()
        for file in Path(folder).glob("*.jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                nodeid, spent = json.loads(line)
                seconds[name_of(nodeid)] += spent
        lines = sorted(seconds.keys() - set(choose(_reached(data), seconds)))
    FILE.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
