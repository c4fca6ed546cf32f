"""Record every scenario against the emulator: ``make record``."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport

from tests.cassettes import tape
from tests.cassettes.scenarios import SCENARIOS, World
from tests.live.proxy import Proxy
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cassettes.scenarios import Scenario

CASSETTES: Final = Path(__file__).parents[2] / "cassettes"

#: An address where no server listens.
NO_SERVER: Final = "http://127.0.0.1:9"

#: The environment variable that lets the behaviour suite replace its cassettes.
RECORD: Final = "VERTEX_REGISTRY_RECORD"

#: The name of the server in a cassette.
EMULATOR: Final = "the emulator of vertex-registry; not Google's service"
VERTEX: Final = "Vertex AI of Google Cloud"

_PROJECT: Final = "test-project"
_LOCATION: Final = "us-central1"
_START: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def world(endpoint: str) -> World:
    """Return a world whose server has this address. A replayed conversation needs no server."""

    def google() -> ModelServiceClient:
        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
        host = endpoint.removeprefix("http://")
        return ModelServiceClient(
            transport=ModelServiceRestTransport(host=host, credentials=credentials, url_scheme="http")
        )

    return World(
        settings={"endpoint": endpoint, "project": _PROJECT, "location": _LOCATION},
        google=google,
        parent=f"projects/{_PROJECT}/locations/{_LOCATION}",
        name="churn",
        source=lambda number: f"gs://models/churn/{number}",
    )


@contextlib.contextmanager
def server(scenario: Scenario, **settings: Any) -> Iterator[str]:
    """Start an emulator that does what the scenario needs, and return its address."""
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(
            Emulator(grpc_port=None, polls_until_done=scenario.polls, **counted() | settings)
        )
        for fault in scenario.faults:
            emulator.fail(**fault)
        stack.callback(emulator.forget_faults)  # the client may retry fewer times than there are faults
        assert emulator.rest is not None
        if scenario.page is None:
            yield emulator.rest
        else:
            yield stack.enter_context(Proxy(emulator.rest, request=_with_small_pages(scenario.page))).address


def counted_client() -> dict[str, Any]:
    """Return settings of a `RegistryClient` that uses REST and whose clock and IDs are counted."""
    seconds, ids = itertools.count(), itertools.count(1)
    return {
        "transport": "rest",
        "now": lambda: _START + dt.timedelta(seconds=next(seconds)),
        "new_id": lambda: f"request-{next(ids)}",
    }


def counted() -> dict[str, Any]:
    """Return settings of an `Emulator` whose clock and IDs are counted."""
    seconds, ids = itertools.count(), itertools.count(10**18)
    return {"now": lambda: _START + dt.timedelta(seconds=next(seconds)), "new_id": lambda: str(next(ids))}


def _with_small_pages(most: int) -> Callable[[str, str, bytes], tuple[str, bytes]]:
    """Return a function that makes requests ask for smaller pages, which a server may always return."""
    return lambda method, target, body: (re.sub(r"pageSize=[0-9]+", f"pageSize={most}", target), body)


def provenance(scenario: Scenario) -> tape.Provenance:
    """Return the provenance of a cassette that's recorded now, against the emulator."""
    return _provenance(scenario.about, scenario.note)


def _provenance(about: str, note: str) -> tape.Provenance:
    return tape.Provenance(
        scenario=about,
        server=EMULATOR,
        version=importlib.metadata.version("vertex-registry"),
        day=dt.datetime.now(dt.UTC).date().isoformat(),
        note=note,
    )


@contextlib.contextmanager
def record_again(file: Path, scratch: Path, about: str) -> Iterator[None]:
    """Record a test's conversation, and compare it with its cassette. With `RECORD` set, replace the cassette.

    Raises:
        AssertionError: The conversation isn't the recorded one.
    """
    provenance = tape.load(file)[0] if file.exists() else _provenance(about, "")
    new = scratch / file.name
    with tape.recording(new, provenance):
        yield
    if os.environ.get(RECORD):
        _replace_if_changed(new, file)
    else:
        recorded = file.read_bytes() if file.exists() else b""
        assert recorded == new.read_bytes(), f"{file} has changed. Run `make record` and review the difference."


def _replace_if_changed(new: Path, old: Path) -> bool:
    """Replace a cassette if its conversation has changed, and return whether it has."""
    if old.exists() and tape.load(old)[1] == tape.load(new)[1]:
        return False
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(new.read_bytes())
    return True


def record(scenario: Scenario, file: Path, provenance: tape.Provenance) -> None:
    """Run a conversation with an emulator, and record it."""
    with server(scenario) as endpoint, tape.recording(file, provenance):
        scenario.run(world(endpoint))


def record_all(folder: Path = CASSETTES) -> list[str]:
    """Record every scenario, and return the names of the cassettes that have changed.

    A conversation that hasn't changed keeps its file, with its day and version. So does a conversation that was
    recorded from Vertex itself.
    """
    changed = []
    with tempfile.TemporaryDirectory() as temporary:
        for scenario in SCENARIOS:
            name = f"{scenario.file}.yaml"
            new, old = Path(temporary, name), folder / name
            if old.exists() and tape.load(old)[0].server == VERTEX:
                continue
            record(scenario, new, provenance(scenario))
            if _replace_if_changed(new, old):
                changed.append(name)
    return changed


def readme(folder: Path = CASSETTES) -> str:
    """Return the text of cassettes/README.md."""
    rows = []
    for file in sorted(folder.rglob("*.yaml")):
        provenance, exchanges = tape.load(file)
        server = f"{provenance.server.partition(' of ')[0]}, {provenance.version}"
        name = file.relative_to(folder).as_posix()
        rows.append(
            f"| `{name}` | {provenance.scenario} | {server} | {provenance.day} | {len(exchanges)} | {provenance.note} |"
        )
    from_google = sum(tape.load(file)[0].server == VERTEX for file in folder.rglob("*.yaml")) or "None"
    return _README.format(rows="\n".join(rows), from_google=from_google)


_README: Final = """\
# Cassettes

A cassette is a recorded conversation between `RegistryClient(transport="rest")` and a server.
If you change what the client sends, a cassette changes too, so a review shows it.
They're also how recordings of the real Vertex AI can become part of the tests.

**{from_google} of them has been recorded from Google.**
"The emulator" is this project's own, in the version that's given.

- `make record` records them again.
  A conversation that hasn't changed keeps its file and its date.
- `make record-live PROJECT=... BUCKET=...` records them from Vertex AI.
  It skips those that need something done to the server.
  See [tests/README.md](../tests/README.md#run-against-vertex-ai).

| cassette | what it is about | recorded against | on | requests | what was done to the server |
|---|---|---|---|---|---|
{rows}

The conversations come from the table in `tests/cassettes/scenarios.py`.
Those in `behaviour` come from the tests in `tests/behaviour` that are marked `cassette`.
`make record` also writes this page.

## What a cassette contains

- A cassette is a YAML file of vcrpy.
  It keeps only the headers `Content-Type` and `Retry-After`: no token, routing header, user agent or version.
  The project, by ID or number, is `PROJECT`, and the host is `vertex`.
- Values that the server makes up are numbered in order: `etag-0001`, `operation-0001`, `page-0001`, `model-0001`.
  Times keep their order and are a second apart, starting on 1 January 2026.
  A second recording therefore gives the same file.
- JSON has sorted keys, because protobuf writes maps in a different order in each process.
  Successive reads of versions are sorted by number.
  The client sends reads of neighboring versions concurrently, so they arrive in any order.

## How cassettes are played

`tests/cassettes` plays each one three times:

1. **To the client**, with vcrpy's `record_mode="none"` and without any socket.
   Method, path and query must match the recording, in order, except for reads of neighboring versions.
   A body must match that of any recorded request with the same method, path and query.
2. **To a fresh emulator**, as questions.
   Its answers must match the recording, except for what `MASKS` in `tests/cassettes/questions.py` names.
3. **With the emulator, recorded again.**
   The result must be the same file, byte for byte, including the order of bodies.
"""


def main() -> None:
    """Record every cassette, and print the names of those that have changed."""
    for name in record_all():
        print("recorded", name)  # noqa: T201 - a command talks to people
    subprocess.run(
        [sys.executable, "-m", "pytest", "tests/behaviour", "-q", "-m", "cassette", "-k", "recorder"],
        cwd=CASSETTES.parent,
        env=os.environ | {RECORD: "1"},
        check=True,
    )
    (CASSETTES / "README.md").write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()
