"""Write what each process did as JSON lines during a run, and read it back as operations afterwards."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.histories.plan import CALL, LONGEST_DELAY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: The seconds after which a call with an unknown outcome can no longer take effect, with room for a slow machine.
LATE: Final = LONGEST_DELAY + 3.0

#: Errors after which no request of the call is in flight, unless the call waited until its timeout.
SETTLED: Final = frozenset(
    {
        "AlreadyExistsError",
        "AmbiguousNameError",
        "ConflictError",
        "InvalidArgumentError",
        "NotFoundError",
        "PermissionDeniedError",
        "Aborted",
        "AlreadyExists",
        "FailedPrecondition",
        "InvalidArgument",
        "NotFound",
    }
)


@dataclass(frozen=True, eq=False)
class Operation:
    """One call of a verb, with what it returned.

    Attributes:
        key: A key that is unique in the run.
        process: The process that called.
        verb: The verb of `RegistryClient`; ``foreign_...`` is Google's client, and ``snapshot`` reads everything.
        name: The model's display name.
        args: The other arguments.
        began: When it was called.
        ended: The latest time at which it took effect. That's when it returned, or later if its outcome isn't known.
        ok: Whether it succeeded.
        result: The verb's result as JSON. If it failed, the request ID of the error, or None.
        error: The class of its error, or an empty string. It's ``killed`` if the process was killed.
        message: The error's message.
        returned: When it returned, with a result or an error.
    """

    key: str
    process: str
    verb: str
    name: str
    args: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    ended: float = math.inf
    ok: bool = False
    result: Any = None
    error: str = ""
    message: str = ""
    returned: float = math.inf

    @property
    def late(self) -> bool:
        """Whether it can have taken effect after it returned."""
        return self.error == "killed" or self.ended > self.returned

    @property
    def foreign(self) -> bool:
        """Whether Google's client made the call."""
        return self.verb.startswith("foreign_")


class Recorder:
    """Writes the history of one process. A call's first line is in the file before the call begins."""

    def __init__(self, path: Path, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._process = process
        self._count = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def note(self, event: str, **values: Any) -> None:
        """Record an event that isn't an operation, such as a fault or a kill."""
        self._write({"event": event, "process": self._process, "at": time.monotonic(), **values})

    def invoke(self, verb: str, name: str, args: dict[str, Any]) -> str:
        """Record that a call begins, and return its key."""
        self._count += 1
        key = f"{self._process}.{self._count}"
        self._write({"event": "invoke", "process": self._process, "key": key, "at": time.monotonic(), "verb": verb,
                     "name": name, "args": args})  # fmt: skip
        return key

    def succeed(self, key: str, result: Any) -> None:
        """Record what a call returned."""
        self._write({"event": "ok", "key": key, "at": time.monotonic(), "result": result})

    def fail(self, key: str, error: Exception) -> None:
        """Record the error a call raised."""
        entry = {"event": "error", "key": key, "at": time.monotonic(), "error": type(error).__name__}
        self._write({**entry, "message": str(error)[:500], "request_id": getattr(error, "request_id", "")})


def read(lines: Iterable[str]) -> tuple[list[Operation], list[dict[str, Any]]]:
    """Return the operations of histories in the order in which they began, and the other events."""
    begun: dict[str, dict[str, Any]] = {}
    ends: dict[str, dict[str, Any]] = {}
    events = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed
        if entry["event"] == "invoke":
            begun[entry["key"]] = entry
        elif entry["event"] in {"ok", "error"}:
            ends[entry["key"]] = entry
        else:
            events.append(entry)
    # The emulator was killed at that time, so no earlier request can arrive any more.
    quiet = min((event["at"] for event in events if event["event"] == "quiet"), default=math.inf)
    kills = {event["name"]: event["at"] for event in events if event["event"] == "kill"}
    operations = [_operation(entry, ends.get(key), kills, quiet) for key, entry in begun.items()]
    return sorted(operations, key=lambda operation: operation.began), events


def read_folder(folder: Path) -> tuple[list[Operation], list[dict[str, Any]]]:
    """Return what all processes of a run recorded in a folder."""
    return read(line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines())


def _operation(
    entry: dict[str, Any], end: dict[str, Any] | None, kills: dict[str | None, float], quiet: float
) -> Operation:
    common = {name: entry[name] for name in ("key", "process", "verb", "name", "args")} | {"began": entry["at"]}
    until = quiet if entry["at"] < quiet else math.inf
    if end is None:
        killed = kills.get(entry["process"], math.inf)
        return Operation(**common, ended=min(killed + LATE, until), error="killed")
    at = end["at"]
    waited = at - entry["at"] >= CALL
    late = min(at + LATE, until)
    if end["event"] == "ok":
        # A deletion that timed out may still be in flight, even if another process deleted the version meanwhile.
        ended = late if waited and "delete" in entry["verb"] else at
        return Operation(**common, ended=ended, returned=at, ok=True, result=end["result"])
    ended = at if end["error"] in SETTLED and not waited else late
    result = end["request_id"] or None
    return Operation(**common, ended=ended, returned=at, result=result, error=end["error"], message=end["message"])
