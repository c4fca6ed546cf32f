"""What each process did, as JSON lines: written while a run goes on, read back as operations afterwards."""

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

#: How long after its end a call whose outcome isn't known can still take effect, with much room for a slow machine.
LATE: Final = LONGEST_DELAY + 3.0

#: Errors after which nothing of a call is on its way, unless it waited for an answer in vain.
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
        ended: When it has taken effect at the latest. That's when it returned, or later if its outcome isn't known.
        ok: Whether it succeeded.
        result: The version, the versions, or what else the verb returned, as JSON; of an error its request id.
        error: The class of its error, or an empty string; ``killed`` if its process was.
        message: The error's message.
        returned: When it returned, even with an error that leaves its effect open.
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
        """Whether something of it may have been on its way when it was over."""
        return self.error == "killed" or self.ended > self.returned

    @property
    def foreign(self) -> bool:
        """Whether Google's client did it."""
        return self.verb.startswith("foreign_")


class Recorder:
    """Writes the history of one process. A line is in the file before the call it announces begins."""

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
    """Return the operations of histories, in the order of their beginnings, and the other events."""
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
    # The emulator was killed then: what had been on its way until then never arrives.
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
        # What a deletion waited for may be on its way, even if somebody else deleted what was meant.
        ended = late if waited and "delete" in entry["verb"] else at
        return Operation(**common, ended=ended, returned=at, ok=True, result=end["result"])
    ended = at if end["error"] in SETTLED and not waited else late
    result = end["request_id"] or None
    return Operation(**common, ended=ended, returned=at, result=result, error=end["error"], message=end["message"])
