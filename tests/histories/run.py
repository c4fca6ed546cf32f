"""Run a round: start an emulator and clients, kill some of them, and check the recorded history."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.histories import history, worker
from tests.histories.checker import Checker, Violation
from vertex_registry.emulator._switches import parse_assumptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.histories.history import Operation
    from tests.histories.plan import Mishap, Round

#: The seconds that a process may take to end after the deadline. A verb that takes longer is a violation.
PATIENCE: Final = 60.0

#: How often an emulator is started on its old ports, which somebody else may have got meanwhile.
_STARTS: Final = 5


@dataclass
class Report:
    """The result of a round."""

    operations: list[Operation] = field(default_factory=list)
    events: collections.Counter[str] = field(default_factory=collections.Counter)
    violations: list[Violation] = field(default_factory=list)
    excused: collections.Counter[str] = field(default_factory=collections.Counter)


class Server:
    """The emulator's process. It's killed, and started again with its data on the same ports."""

    def __init__(self, folder: Path, switches: tuple[str, ...], polls: int) -> None:
        self._command = [sys.executable, "-m", "vertex_registry.emulator", "--data", str(folder / "emulator.db")]
        self._command += ["--polls-until-done", str(polls)]
        for switch in switches:
            self._command += ["--assume", switch]
        self.log = folder / "emulator.log"
        self._ports = ("0", "0")
        self.grpc = self.rest = ""
        self.start()

    def start(self) -> None:
        """Start the emulator, and wait until it answers."""
        ports = ["--grpc-port", self._ports[0], "--rest-port", self._ports[1]]
        for _ in range(_STARTS):
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, *ports], stdout=subprocess.PIPE, stderr=log, text=True
                )
            assert self._process.stdout is not None
            if line := self._process.stdout.readline():
                break
            self.kill()
        else:
            raise RuntimeError(f"The emulator doesn't start: {self.log.read_text()[-500:]}")
        told = json.loads(line)
        self.grpc, self.rest = told["grpc"], told["rest"]
        self._ports = (self.grpc.rpartition(":")[2], self.rest.rpartition(":")[2])

    def kill(self) -> None:
        """Kill the emulator. Answered writes are on the disk, and requests in flight are lost."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Crew:
    """The processes of a round."""

    def __init__(self, plan: Round, server: Server, folder: Path, transport: str) -> None:
        self._plan, self._server, self._folder, self._transport = plan, server, folder, transport
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            [
                "google.cloud.aiplatform_v1.services.model_service",
                "requests",
                "vertex_registry._deletion",
                "vertex_registry._promotion",
                "vertex_registry._registration",
                "tests.histories.worker",
            ]
        )
        self._begin = self._context.Barrier(plan.processes + 2)
        self._lives: collections.Counter[int | None] = collections.Counter()
        self._running: dict[int | None, Any] = {}
        self.deadline = math.inf
        for process in (*range(plan.processes), None):
            self._start(process)
        self._begin.wait(PATIENCE)
        self.deadline = time.monotonic() + plan.seconds

    def _start(self, process: int | None) -> None:
        odd = (process or 0) % 2 == 1
        transport = ("rest" if odd else "grpc") if self._transport == "both" else self._transport
        spec = worker.Spec(
            round=self._plan,
            process=process,
            life=self._lives[process],
            transport=transport,
            grpc=self._server.grpc,
            rest=self._server.rest,
            folder=str(self._folder),
            deadline=self.deadline,
        )
        self._running[process] = self._context.Process(target=worker.run, args=(spec, self._begin), daemon=True)
        self._running[process].start()

    def suffer(self, mishap: Mishap) -> str | None:
        """Kill a client or the emulator, start it again, and return which life of which client has ended."""
        if mishap.process is None:
            self._server.kill()
            self._server.start()
            return None
        self._running[mishap.process].kill()
        self._running[mishap.process].join()
        ended = f"p{mishap.process}-{self._lives[mishap.process]}"
        self._lives[mishap.process] += 1
        self._start(mishap.process)
        return ended

    def end(self) -> list[str]:
        """Wait for all processes, and return the names of those that hung."""
        latest = max(time.monotonic(), self.deadline) + PATIENCE
        hung = []
        for process, running in self._running.items():
            running.join(max(0.1, latest - time.monotonic()))
            if running.is_alive():
                hung.append(f"p{process}")
                running.kill()
                running.join()
            elif running.exitcode:
                hung.append(f"p{process} (exit status {running.exitcode})")
            running.close()
        return hung


def run_round(plan: Round, folder: Path, *, transport: str = "both") -> Report:
    """Run a round in an empty folder and check its history."""
    server = Server(folder, plan.switches, plan.polls)
    recorder = history.Recorder(folder / "main.jsonl", "main")
    recorder.note("plan", switches=plan.switches)
    try:
        crew = Crew(plan, server, folder, transport)
        for mishap in plan.mishaps():
            time.sleep(max(0.0, crew.deadline - plan.seconds + mishap.at - time.monotonic()))
            if (name := crew.suffer(mishap)) is None:
                recorder.note("kill", kind="emulator killed", name=None)
            else:
                recorder.note("kill", kind="client killed", name=name)
        hung = crew.end()
        server.kill()
        recorder.note("quiet")
        server.start()
        _settle(plan, server, recorder, folder)
    finally:
        server.kill()
        recorder.close()
    report = check(folder)
    report.violations += [Violation("ends", name, "A process didn't end, or failed.", ()) for name in hung]
    report.violations += [Violation("emulator", "emulator.log", line, ()) for line in _complaints(server.log)]
    return report


def check(folder: Path) -> Report:
    """Check the history in a folder."""
    operations, noted = history.read_folder(folder)
    events = collections.Counter(entry.get("kind", entry["event"]) for entry in noted)
    switches = [switch for entry in noted if entry["event"] == "plan" for switch in entry["switches"]]
    checker = checker_for(operations, switches)
    return Report(operations, events, checker.check(), checker.excused)


def checker_for(operations: list[Operation], switches: Iterable[str]) -> Checker:
    """Return the checker of a history, given the switches of its emulator. The other ones have their defaults."""
    assumed = parse_assumptions(dict(switch.split("=") for switch in switches))
    return Checker(operations, lagging=assumed.list_lag > 0, refusing=assumed.default_delete == "refuse")


def _settle(plan: Round, server: Server, recorder: history.Recorder, folder: Path) -> None:
    """Read everything, finish interrupted registrations and promotions, and read everything once more."""
    with worker.connect("grpc", server.grpc, server.rest) as registry:
        caller = worker.Caller(registry, recorder)
        caller.snapshot("quiet")
        for name, args in _to_run_again(folder):
            caller.register(name, args)
        for name in plan.themes:
            for stage in ("Staging", "Production"):
                if there := [version for version in caller.versions(name) if version.stage == stage]:
                    version = there[len(there) // 2].version
                    caller.call("set_stage", name, version=version, stage=stage, archive_existing=True)
        caller.snapshot("end")


def _to_run_again(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the registrations that failed, were killed, or were called more than once. One of them may arrive late."""
    attempts: dict[str, list[Operation]] = collections.defaultdict(list)
    for operation in history.read_folder(folder)[0]:
        if operation.verb == "register_version":
            attempts[operation.args["source"]].append(operation)
    for made in attempts.values():
        requests = [worker.request_of(attempt) for attempt in made]
        if any(requests) and (len(made) > 1 or not made[0].ok):
            yield made[0].name, made[0].args | {"request_id": max(filter(None, requests))}


def _complaints(log: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [line for line in log.read_text().splitlines() if line.startswith(("ERROR", "Traceback"))][:3]
    return []


def clear(folder: Path) -> None:
    """Remove a round's files."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
