"""Live runs with emulators that differ on purpose: the report names exactly these differences."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import google.auth
import google.auth.transport.requests
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cassettes import questions, recorder, tape
from tests.cassettes.scenarios import BY_FILE, SCENARIOS
from tests.live import fidelity
from tests.live.__main__ import Outcome, _ask, _report, main
from tests.live.probes import PROBES, ProbeClient
from tests.live.proxy import Proxy
from tests.live.service import Refused, Service, _default_credentials
from vertex_registry import RegistryClient, _credentials
from vertex_registry.emulator import Emulator
from vertex_registry.emulator._switches import SWITCHES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live.probes import Probe
    from tests.storage.server import Proxy as StorageProxy
    from tests.storage.server import StorageServer

#: Each other value of a switch, and how it changes the answers in the recorded conversations.
DEVIATIONS: dict[tuple[str, str], set[tuple[str, str, str, str]]] = {
    ("labels-at-upload", "model"): set(),
    ("labels-at-upload", "first-on-model"): set(),
    ("label-wins", "model"): set(),
    ("label-filter", "own"): set(),
    ("list-lag", "2"): {
        ("ListModels", "models", '["churn@1"]', "[]"),
        ("ListModelVersions", "models", '["churn@2", "churn@1"]', "[]"),
    },
    ("default-delete", "move"): {("DeleteModelVersion", "status", "400 FAILED_PRECONDITION", "200")},
    ("stale-etag", "failed-precondition"): {("UpdateModel", "status", "409 ABORTED", "400 FAILED_PRECONDITION")},
    ("id-taken", "operation"): {("UploadModel", "status", "409 ALREADY_EXISTS", "200")},
}

#: An emulator in the process that records must not send requests of its own, because vcrpy would intercept them.
WITHOUT_STORAGE: dict[str, Any] = {"storage": ""}


def service(endpoint: str | None) -> Service:
    assert endpoint is not None
    return Service("acme-prod-1", "models-1", "us-central1", endpoint, "vr-live-0", artifacts=False)


@pytest.fixture(scope="module", name="probes")
def _probes() -> Iterator[ProbeClient]:
    with Emulator(grpc_port=None) as emulator, ProbeClient.connect(service(emulator.rest)) as probes:
        yield probes


# --- the questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.question)
def test_the_emulator_answers(probes: ProbeClient, probe: Probe) -> None:
    """Each question can be sent, and the emulator's answer is the one in the table."""
    reply = probes.ask(probe)

    assert reply.answer in probe.emulator
    assert not reply.differs


def test_every_question_is_asked() -> None:
    """Every question of the list, (a) to (p), has a probe, and so has every switch of the emulator."""
    assert {probe.letter for probe in PROBES} == set("abcdefghijklmnop")
    assert sorted(probe.switch for probe in PROBES if probe.switch) == sorted(SWITCHES)
    assert len({probe.question for probe in PROBES}) == len(PROBES)


@pytest.mark.parametrize(("switch", "value"), DEVIATIONS)
def test_a_turned_switch(switch: str, value: str) -> None:
    """An emulator with one switch turned answers exactly that switch's question differently."""
    with (
        Emulator(grpc_port=None, assume={switch: value}) as emulator,
        ProbeClient.connect(service(emulator.rest)) as probes,
    ):
        replies = [probes.ask(probe) for probe in PROBES if probe.switch]

    assert [reply.probe.switch for reply in replies if reply.differs] == [switch]


def test_every_switch_turned() -> None:
    """With every switch turned, exactly those questions are answered differently, and the report shows them."""
    with (
        Emulator(grpc_port=None, assume=dict(DEVIATIONS.keys())) as emulator,
        ProbeClient.connect(service(emulator.rest)) as probes,
    ):
        replies = [probes.ask(probe) for probe in PROBES]
    text = fidelity.report(replies, [], about="A test.", conversations=0)

    assert {reply.probe.switch for reply in replies if reply.differs} == SWITCHES.keys()
    assert headings(text) == {reply.probe.question for reply in replies if reply.differs}
    assert "The etag is stale" in text


def test_a_question_that_cannot_be_asked() -> None:
    """If a service doesn't answer a question usefully, the run goes on, and the report names the question."""

    def broken(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        del target
        return (500, b"{}") if method == "PATCH" else (status, body)

    with (
        Emulator(grpc_port=None) as emulator,
        Proxy(emulator.rest or "", answer=broken) as proxy,
        ProbeClient.connect(service(proxy.address)) as probes,
    ):
        answers = {probe.question: probes.ask(probe).answer for probe in PROBES if probe.letter in "cj"}

    question = "If a model and its version have a label with the same key, which one is shown?"
    assert "couldn't be asked" in answers[question]
    assert answers["Is the number of a deleted version reused?"] == "no"


# --- the answers ------------------------------------------------------------------------------------------------------


#: Switches whose answers can be told apart, so that they're turned together. The rest have none in these conversations.
TOGETHER: list[dict[str, str]] = [
    {"labels-at-upload": "model", "label-wins": "model", "label-filter": "own", "list-lag": "2"},
    {"labels-at-upload": "first-on-model", "stale-etag": "failed-precondition", "id-taken": "operation"},
    {"default-delete": "move"},
]


@pytest.mark.parametrize("turned", TOGETHER, ids=" ".join)
def test_answers_of_turned_switches(tmp_path: Path, turned: dict[str, str]) -> None:
    """With some switches turned, exactly the responses that depend on them differ from the recorded conversations."""
    found: list[questions.Difference] = []
    for name in ("race-lost", "error-conflict", "delete-default"):
        scenario = BY_FILE[name]
        file = tmp_path / f"{scenario.file}.yaml"
        with (
            recorder.server(scenario, assume=turned) as endpoint,
            tape.recording(file, recorder.provenance(scenario)),
        ):
            scenario.run(recorder.world(endpoint))
        with recorder.server(scenario) as endpoint:
            found += questions.ask(tape.load(file)[1], endpoint)

    expected = set[tuple[str, str, str, str]]().union(*(DEVIATIONS[switch] for switch in turned.items()))
    if turned.keys() & {"default-delete", "list-lag"}:  # answers to later requests differ too
        assert fidelity.group(found).keys() >= expected
    else:
        assert fidelity.group(found).keys() == expected


def test_every_switch_is_turned_with_others() -> None:
    """No switch and no value of one is left out above."""
    assert {item for turned in TOGETHER for item in turned.items()} == DEVIATIONS.keys()


def test_answers_that_were_altered(tmp_path: Path) -> None:
    """The report has each altered response, with its RPC, field and both values, and nothing else."""
    scenario = BY_FILE["first-registration"]
    file = tmp_path / "altered.yaml"

    def alter(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        del target
        if method == "PATCH":
            body = body.replace(b'"versionId": "1"', b'"versionId": "01"').replace(b'"who leaves"', b'"a|b"')
        return status, body

    with (
        recorder.server(scenario) as endpoint,
        Proxy(endpoint, answer=alter) as proxy,
        tape.recording(file, recorder.provenance(scenario)),
    ):
        scenario.run(recorder.world(proxy.address))
    with recorder.server(scenario) as endpoint:
        found = questions.ask(tape.load(file)[1], endpoint)
    text = fidelity.report([], found, about="A test.", conversations=1)

    assert rows(text) == {
        r"| UpdateModel | `versionId` | 1 | 01 |",
        r"| UpdateModel | `description` | who leaves | a\|b |",
    }


def headings(text: str) -> set[str]:
    return set(re.findall(r"(?m)^### [a-o]\. (.*)$", text))


def rows(text: str) -> set[str]:
    """Return the first four columns of the report's table."""
    return {found[0] for found in re.finditer(r"(?m)^\| [A-Z][A-Za-z]+ \| `.*?` \|.*?(?<!\\)\|.*?(?<!\\)\|", text)}


def test_the_report_has_no_secrets() -> None:
    """The report contains no project, account or bucket, whatever a service answers."""
    account = "service-123456789012@gcp-sa-aiplatform.iam.gserviceaccount.com"
    words = f"{account} of projects/123456789012 (123456789012, acme-prod-1) may not read gs://acme-prod-1-models/x"
    ours = attrs.evolve(service("http://127.0.0.1:9"), bucket="acme-prod-1-models")

    def refuse(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        del target, status, body
        return 403, json.dumps({"error": {"status": "PERMISSION_DENIED", "message": f"{method}: {words}"}}).encode()

    with (
        Emulator(grpc_port=None) as emulator,
        Proxy(emulator.rest or "", answer=refuse) as proxy,
        ProbeClient.connect(attrs.evolve(ours, endpoint=proxy.address)) as probes,
    ):
        replies = tuple(probes.ask(probe) for probe in PROBES if probe.letter == "m")
    differences = tuple(
        questions.Difference("GetModel", f"GET models/x ({words})", where, value, f"also {words}")
        for where, value in (("labels.a", words), ("labels.b", {"by": words}), ("labels.c", ["x" * 150 + words]))
    )
    text = _report(ours, Outcome(failed=False, replies=replies, differences=differences, conversations=1))

    redacted = "ACCOUNT of projects/PROJECT (NUMBER, PROJECT) may not read gs://BUCKET/x"
    assert f"* error message: GET: {redacted}\n" in text
    assert f"| GetModel | `labels.a` | also {redacted} | {redacted} | 1 | GET models/x ({redacted}) |" in text
    assert not re.search(r"acme|prod-1|\d{10}|[a-z]@|gserviceaccount", text)


# --- the run ----------------------------------------------------------------------------------------------------------


#: Measuring coverage costs half as much again, and other tests reach each line.
without_coverage = pytest.mark.unmeasured
#: vcrpy takes connections out of their pool when a cassette ends, but doesn't close all of them.
left_open_by_vcrpy = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("what", ["run", "record"])
def test_no_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    """Without credentials nothing starts, and the message says which command to run."""
    for variable, value in {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    assert main([what, "acme-prod-1", "models-1", "--yes"]) == 2
    assert "gcloud auth application-default login" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["VERTEX_AI_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
@pytest.mark.parametrize("what", ["run", "record"])
def test_an_emulator_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, variable: str
) -> None:
    """If the environment names an emulator, nothing starts, because its answers would be reported as Vertex's."""
    monkeypatch.setenv(variable, "127.0.0.1:9")

    assert main([what, "acme-prod-1", "models-1", "--yes"]) == 2
    message = capsys.readouterr().err
    assert f"{variable} is set" in message
    assert "--endpoint" in message


def test_no_account_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The credentials of a run provide a token, but no account name."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "key.json"
    with Emulator(grpc_port=None) as emulator:
        about = {"type": "service_account", "client_email": "ann@acme.example", "token_uri": f"{emulator.rest}/token"}
        file.write_text(json.dumps(about | {"private_key": pem.decode()}), encoding="utf-8")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        assert _credentials.principal(google.auth.default()[0]) == "ann@acme.example"
        credentials = _default_credentials()
        credentials.refresh(google.auth.transport.requests.Request())

    assert credentials.token.startswith("emulator-")
    assert _credentials.principal(credentials) is None


def test_no_project(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a project or a bucket, nothing starts either."""
    assert main(["run", "", ""]) == main(["record", "acme-prod-1", "", "--yes"]) == 2
    assert "PROJECT=... BUCKET=..." in capsys.readouterr().err


@without_coverage
@left_open_by_vcrpy
def test_a_run_needs_consent(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    storage_emulator: StorageServer,
) -> None:
    """A run shows what it will create, and sends nothing unless you agree."""
    del storage_emulator
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    with Emulator(grpc_port=None, **WITHOUT_STORAGE) as emulator:
        arguments = ["record", "acme-prod-1", "models-1", "--endpoint", str(emulator.rest), "--folder", str(tmp_path)]
        arguments += ["--conversations", "first-registration"]
        assert main(arguments) == 2
        assert emulator.requests() == ()

    shown = capsys.readouterr().out
    assert re.search(r"about \d+ models with \d+ versions, and \d+ objects in gs://models-1", shown)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("Yes\n", True), ("\n", False), ("maybe\n", False), ("", False)]
)
def test_only_yes_starts_a_run(monkeypatch: pytest.MonkeyPatch, typed: str, agreed: bool) -> None:
    """Only "y" and "yes" count as consent. Without a terminal, there's none."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    with contextlib.nullcontext() if agreed else pytest.raises(Refused):
        _ask()


def test_an_artifact_is_uploaded_and_nothing_else_requested(storage_server: StorageServer, proxy: StorageProxy) -> None:
    """Uploading an artifact sends one request. Google's package would also request the bucket in another thread."""
    storage_server.make_bucket("models-9")
    service = Service("acme-prod-1", "models-9", "us-central1", "http://127.0.0.1:9", "vr-live-0")

    assert service.put_artifact("churn") == "gs://models-9/vr-live-0/churn"
    assert [seen.method for seen in proxy.seen] == ["POST"]


@without_coverage
@left_open_by_vcrpy
def test_recording_with_another_project(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    storage_emulator: StorageServer,
) -> None:
    """Recording with another project, bucket and namespace gives the same conversations, with the new server's name.

    A conversation that needs something done to the server isn't recorded.
    """
    storage_emulator.make_bucket("models-1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with Emulator(grpc_port=None, **recorder.counted(), **WITHOUT_STORAGE) as emulator:
        register_foreign_model(emulator)
        arguments = ["record", "acme-prod-1", "gs://models-1", "--endpoint", str(emulator.rest)]
        status = main([*arguments, "--folder", str(tmp_path)])
        shown = capsys.readouterr().out
        assert status == 0
        assert listed_models(emulator) == ["somebody else's"]

    assert storage_emulator.names("models-1") == []
    assert {file.stem for file in tmp_path.iterdir()} == {one.file for one in SCENARIOS if not one.note}
    assert "10 conversations were compared. Their answers have 0 kinds of differences." in shown
    for file in tmp_path.iterdir():
        provenance, exchanges = tape.load(file)
        assert provenance.server == "a server in place of Google's service"
        assert not re.search(r"acme-prod-1|models-1|vr-live-", file.read_text(encoding="utf-8"))
        assert exchanges == tape.load(recorder.CASSETTES / file.name)[1]


@without_coverage
@left_open_by_vcrpy
def test_a_failed_conversation_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, storage_emulator: StorageServer
) -> None:
    """If a conversation fails, the others go on, everything is removed, and the status is 1."""
    storage_emulator.make_bucket("models-2")
    storage_emulator.put("models-2", "mine/model.joblib", b"")
    with Emulator(grpc_port=None, assume={"list-lag": "2"}, **WITHOUT_STORAGE) as emulator:
        register_foreign_model(emulator)
        emulator.fail("MergeVersionAliases", "PERMISSION_DENIED")
        emulator.fail("DeleteModel", "FAILED_PRECONDITION", times=2)
        arguments = ["record", "acme-prod-1", "models-2", "--endpoint", str(emulator.rest), "--yes"]
        arguments += ["--folder", str(tmp_path), "--conversations", "delete-default", "first-registration"]
        assert main(arguments) == 1
        assert listed_models(emulator) == ["somebody else's"]

    shown = capsys.readouterr().out
    assert re.search(r"The conversation [a-z-]+ failed: PermissionDeniedError", shown)
    assert storage_emulator.names("models-2") == ["mine/model.joblib"]


def denied(path: str) -> Any:
    """Return a function that answers the GET of a path with PERMISSION_DENIED."""

    def answer(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        if method == "GET" and path in target:
            return 403, json.dumps({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "No."}}).encode()
        return status, body

    return answer


def test_resources_that_cannot_be_removed(storage_server: StorageServer, proxy: StorageProxy) -> None:
    """If a list, one of its pages or a removal fails, the rest is removed. The message names what's left, and why."""
    storage_server.make_bucket("models-4")
    with (
        Emulator(grpc_port=None) as emulator,
        Proxy(
            emulator.rest or "",
            request=lambda method, target, body: (target.replace("pageSize=100", "pageSize=1"), body),
            answer=denied("pageToken="),
        ) as paged,
    ):
        ours = attrs.evolve(service(emulator.rest), bucket="models-4", artifacts=True)
        with ours.connect() as registry:
            for name in "abc":
                registry.register_version(f"vr-live-0-{name}", "gs://models-4/x", container="us-docker.pkg.dev/a/b/c:1")
                storage_server.put("models-4", f"vr-live-0/{name}", b"")

        emulator.fail("ListModels", "PERMISSION_DENIED")
        proxy.fail("DELETE", "vr-live-0%2Fb", status=403)
        shown = ours.remove()
        assert shown.startswith("Removed 0 models and 2 objects")
        assert re.findall(r"(?m)^  (\S+(?: of \S+)?): .", shown) == ["gs://models-4/vr-live-0/b", "models of vr-live-0"]

        proxy.fail("GET", "prefix=", status=403)
        shown = attrs.evolve(ours, endpoint=paged.address).remove()
        assert shown.startswith("Removed 1 models and 0 objects")
        assert re.findall(r"(?m)^  (\w+ of \S+): .", shown) == ["models of vr-live-0", "objects of vr-live-0"]

        assert ours.remove() == "Removed 2 models and 1 objects that start with vr-live-0."
        assert storage_server.names("models-4") == []


@without_coverage
@left_open_by_vcrpy
def test_the_error_that_ended_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, storage_server: StorageServer
) -> None:
    """The error that ended a run is raised, even if its objects can't be removed. The models are removed."""
    storage_server.make_bucket("models-5")
    with (
        Proxy(storage_server.url, answer=denied("prefix=")) as storage,
        Emulator(grpc_port=None, **WITHOUT_STORAGE) as emulator,
    ):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.address)
        register_foreign_model(emulator)
        arguments = ["record", "acme-prod-1", "models-5", "--endpoint", str(emulator.rest), "--yes"]
        with pytest.raises(FileNotFoundError):
            main([*arguments, "--folder", str(tmp_path / "nowhere"), "--conversations", "first-registration"])
        assert listed_models(emulator) == ["somebody else's"]

    assert re.search(r"(?m)^  objects of vr-live-\w+: .*403", capsys.readouterr().out)


def test_a_run(storage_emulator: StorageServer) -> None:
    """A run creates what it announced, reports what differs, and leaves the project and the bucket as they were."""
    storage_emulator.make_bucket("models-3")
    storage_emulator.put("models-3", "mine/model.joblib", b"")
    assume = {"label-wins": "model", "stale-etag": "failed-precondition"}
    with Emulator(grpc_port=None, storage=storage_emulator.url, assume=assume) as emulator:
        register_foreign_model(emulator)
        before = len(emulator.requests())
        command = [sys.executable, "-m", "tests.live", "run", "acme-prod-1", "models-3", "--yes"]
        command += ["--endpoint", str(emulator.rest), "--tests", "tests/behaviour/test_models.py::test_a_model"]
        command += ["tests/behaviour/test_races.py::test_many_threads"]
        command += ["--conversations", "first-registration", "error-conflict"]
        # Don't measure coverage in these processes: it's slow, and other tests reach each line.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        run = subprocess.run(
            command, cwd=Path(__file__).parents[2], check=False, capture_output=True, text=True, env=environment
        )
        assert listed_models(emulator) == ["somebody else's"]
        uploads = [request for request in emulator.requests()[before:] if request.rpc == "UploadModel"]

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"with {len(uploads)} versions, and {len(uploads)} objects in gs://models-3" in run.stdout
    assert re.search(r"1 passed, \d+ deselected", run.stdout)
    assert headings(run.stdout) == {probe.question for probe in PROBES if probe.switch in assume}
    assert rows(run.stdout) == {"| UpdateModel | `status` | 409 ABORTED | 400 FAILED_PRECONDITION |"}
    assert storage_emulator.names("models-3") == ["mine/model.joblib"]


def register_foreign_model(emulator: Emulator) -> None:
    with RegistryClient(endpoint=emulator.rest, project="acme-prod-1", location="us-central1") as registry:
        registry.register_version("somebody else's", "gs://elsewhere/1", container="us-docker.pkg.dev/acme/any/image:1")


def listed_models(emulator: Emulator) -> list[str]:
    with RegistryClient(endpoint=emulator.rest, project="acme-prod-1", location="us-central1") as registry:
        for _ in range(5):
            models = [model.name for model in registry.list_models()]
    return models


def test_the_environment_of_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment carries the whole service to the process of the suite."""
    one = attrs.evolve(service("http://127.0.0.1:9"), folder="somewhere")
    assert Service.of_this_run() is None
    for variable, value in one.environment().items():
        monkeypatch.setenv(variable, value)

    assert Service.of_this_run() == one
