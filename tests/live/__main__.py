"""Run the tests, the questions and the conversations against the real Vertex AI.

``make live`` and ``make record-live`` start this. A run first rehearses with an emulator, to know what it will create.
Then it asks for your consent, runs, compares every answer with the emulator's, removes what it created, and prints the
report.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

import attrs

from tests.cassettes import questions, recorder, tape
from tests.cassettes.scenarios import SCENARIOS, World
from tests.live import fidelity
from tests.live.probes import PROBES, ProbeClient
from tests.live.service import Refused, Service
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cassettes.questions import Difference
    from tests.cassettes.scenarios import Scenario
    from tests.live.probes import Reply

_HERE: Final = Path(__file__).parents[2]
_SECONDS_AN_UPLOAD: Final = 5  # the two seconds between uploads that Vertex requires, and the operation


@attrs.frozen
class Outcome:
    """The result of a run.

    Attributes:
        failed: Whether a test or a conversation failed.
        replies: The answers to the probes.
        differences: The other answers that differ from the emulator's.
        conversations: How many conversations were compared.
    """

    failed: bool
    replies: tuple[Reply, ...]
    differences: tuple[Difference, ...]
    conversations: int


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.live", description=__doc__)
    parser.add_argument("what", choices=["run", "record"], help="run the behaviour suite, or record the cassettes")
    parser.add_argument("project", help="the project")
    parser.add_argument("bucket", help="a bucket in the location, for the artifacts")
    parser.add_argument("--location", default="us-central1", help="the location (%(default)s)")
    parser.add_argument("--yes", action="store_true", help="don't ask before the first write")
    parser.add_argument("--endpoint", default="", metavar="URL", help="use this server instead of Vertex")
    parser.add_argument("--tests", nargs="+", default=["tests/behaviour"], help="which tests (%(default)s)")
    every = [scenario.file for scenario in SCENARIOS if scenario.live]
    parser.add_argument(
        "--conversations", nargs="+", choices=every, default=every, help="which conversations (all)", metavar="NAME"
    )
    parser.add_argument("--folder", default=str(recorder.CASSETTES), help="the folder for cassettes (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the run, and return its exit status: 0 if everything succeeded, 1 if a test failed, 2 if it didn't start."""
    options = _parser().parse_args(arguments)
    bucket = options.bucket.removeprefix("gs://").rstrip("/")
    scenarios = [scenario for scenario in SCENARIOS if scenario.file in options.conversations]
    service = Service(options.project, bucket, options.location, options.endpoint, f"vr-live-{secrets.token_hex(4)}")
    try:
        service.check()
        _print(_rehearse(service, options.what, options.tests, scenarios))
        if not options.yes:
            _ask()
    except Refused as refused:
        print(refused, file=sys.stderr)  # noqa: T201 - a command talks to people
        return 2
    with tempfile.TemporaryDirectory() as folder:
        service = attrs.evolve(service, folder=folder)
        try:
            if options.what == "record":
                outcome = _record(service, scenarios, Path(options.folder))
            else:
                outcome = _run(service, scenarios, options.tests)
        finally:
            _print(service.remove())
    _print(_report(service, outcome))
    return 1 if outcome.failed else 0


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - likewise


def _ask() -> None:
    try:
        agreed = input("Go on? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        agreed = False
    if not agreed:
        raise Refused("Nothing was sent.")


def _report(service: Service, outcome: Outcome) -> str:
    server = f"A server at {service.endpoint}, in place of Vertex" if service.endpoint else "Vertex AI, v1"
    about = (
        f"{server}, in {service.location}, compared on {dt.datetime.now(dt.UTC).date().isoformat()} by vertex-registry "
        f"{importlib.metadata.version('vertex-registry')} over REST. The emulator is from the same version."
    )
    return fidelity.report(
        outcome.replies,
        outcome.differences,
        about=about,
        conversations=outcome.conversations,
        redact=service.redact,
    )


# --- the rehearsal ----------------------------------------------------------------------------------------------------


def _rehearse(service: Service, what: str, tests: Sequence[str], scenarios: Sequence[Scenario]) -> str:
    """Do everything with an emulator, and return what it created."""
    _print("Rehearsing with the emulator ...")
    with (
        Emulator(grpc_port=None, storage="") as emulator,
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ),
    ):
        os.environ.pop("STORAGE_EMULATOR_HOST", None)  # the rehearsal uploads no artifacts, so it needs no storage
        rehearsal = attrs.evolve(service, endpoint=emulator.rest or "", folder=folder, artifacts=False)
        if what == "record":
            outcome = _record(rehearsal, scenarios, Path(folder))
        else:
            outcome = _run(rehearsal, scenarios, tests, quiet=True)
        if outcome.failed or outcome.differences or any(reply.differs for reply in outcome.replies):
            _print(_report(rehearsal, outcome))
            raise Refused("The rehearsal with the emulator failed; see above. Nothing was sent to the service.")
        sent = emulator.requests()
    uploads = [request.message for request in sent if request.rpc == "UploadModel"]
    models = sum(not message.parent_model for message in uploads)
    minutes = -(-len(uploads) * _SECONDS_AN_UPLOAD // 60)
    return (
        f"This sends about {len(sent)} requests to project {service.project} in {service.location}. They create about "
        f"{models} models with {len(uploads)} versions, and {len(uploads)} objects in gs://{service.bucket}. "
        f"All names start with {service.namespace}. Nothing else is written, and everything is removed at the end. "
        f"It may take {minutes} minutes."
    )


# --- the run ----------------------------------------------------------------------------------------------------------


def _run(service: Service, scenarios: Sequence[Scenario], tests: Sequence[str], *, quiet: bool = False) -> Outcome:
    """Run the behaviour suite, the probes and the conversations."""
    command = [sys.executable, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider", "--force-enable-socket"]
    suite = subprocess.run(
        command, cwd=_HERE, env=os.environ | service.environment(), check=False, capture_output=quiet, text=True
    )
    if quiet and suite.returncode:
        _print(suite.stdout)
    with ProbeClient.connect(service) as probes:
        replies = tuple(probes.ask(probe) for probe in PROBES)
    succeeded = [_record_scenario(service, scenario) for scenario in scenarios]
    return _compare(service, replies, failed=suite.returncode != 0 or not all(succeeded))


def _record(service: Service, scenarios: Sequence[Scenario], folder: Path) -> Outcome:
    """Record the conversations that need no faults."""
    failed = False
    for scenario in scenarios:
        if not _record_scenario(service, scenario):
            failed = True
            continue
        old = folder / f"{scenario.file}.yaml"
        new = Path(service.folder, old.name)
        if new != old and not (old.exists() and tape.load(old) == tape.load(new)):
            old.write_bytes(new.read_bytes())
    if folder == recorder.CASSETTES:
        (folder / "README.md").write_text(recorder.readme(), encoding="utf-8")
    return _compare(service, (), failed=failed)


def _record_scenario(service: Service, scenario: Scenario) -> bool:
    """Run a conversation and record it. Return whether it succeeded."""
    name = f"{service.namespace}-{scenario.file}"
    world = World(
        settings=service.settings,
        google=service.google,
        parent=service.parent,
        name=name,
        source=lambda number: service.put_artifact(f"{name}/{number}"),
    )
    provenance = tape.Provenance(
        scenario=scenario.about,
        server="a server in place of Google's service" if service.endpoint else recorder.VERTEX,
        version="v1",
        day=dt.datetime.now(dt.UTC).date().isoformat(),
    )
    file = Path(service.folder, f"{scenario.file}.yaml")
    try:
        with tape.recording(file, provenance, service.replacements(name), before=service.wait_turn):
            scenario.run(world)
    except Exception as error:  # noqa: BLE001  # the other conversations still run
        _print(f"The conversation {scenario.file} failed: {type(error).__name__}: {error}")
        return False
    return True


def _compare(service: Service, replies: tuple[Reply, ...], *, failed: bool) -> Outcome:
    """Send every conversation to a fresh emulator, and compare its answers."""
    found: list[Difference] = []
    files = sorted(Path(service.folder).glob("*.yaml"))
    for file in files:
        _, exchanges = tape.load(file)
        with Emulator(grpc_port=None, storage="") as emulator:
            found += questions.ask(exchanges, emulator.rest or "", alone=False)
    return Outcome(failed, replies, tuple(found), len(files))


if __name__ == "__main__":
    sys.exit(main())
