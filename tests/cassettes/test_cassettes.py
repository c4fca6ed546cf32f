"""Every cassette is played to the client, sent to the emulator, and recorded again."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from vcr.errors import CannotOverwriteExistingCassetteException

from tests.cassettes import questions, recorder, scenarios, tape
from tests.cassettes.scenarios import BY_FILE, SCENARIOS
from tests.live.proxy import Proxy
from vertex_registry import NotFoundError, RegistryClient, Stage, errors
from vertex_registry.emulator import Emulator
from vertex_registry.emulator._names import project_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cassettes.scenarios import Scenario, World

NOT_FOUND = recorder.CASSETTES / "error-not-found.yaml"

#: To count coverage costs much, and other tests reach each line.
pytestmark = pytest.mark.unmeasured

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.file)


def file_of(scenario: Scenario) -> Path:
    return recorder.CASSETTES / f"{scenario.file}.yaml"


@every_scenario
@pytest.mark.disable_socket
def test_the_client_sends_the_recorded_requests(scenario: Scenario) -> None:
    """The client sends exactly the recorded requests, and returns the right results."""
    with tape.replaying(file_of(scenario)):
        scenario.run(recorder.world(recorder.NO_SERVER))


@every_scenario
def test_the_emulator_answers_like_the_recording(scenario: Scenario) -> None:
    """A fresh emulator answers like the recording."""
    _, exchanges = tape.load(file_of(scenario))
    with recorder.server(scenario) as endpoint:
        assert questions.ask(exchanges, endpoint) == []


@pytest.mark.parametrize("file", sorted((recorder.CASSETTES / "behaviour").iterdir()), ids=lambda file: file.stem)
def test_the_emulator_answers_like_the_suites_recordings(file: Path) -> None:
    """The same is true for the cassettes of the behavior suite. Its own tests play them to the client."""
    with Emulator(grpc_port=None) as emulator:
        assert questions.ask(tape.load(file)[1], emulator.rest or "") == []


@every_scenario
def test_a_second_recording_is_the_same_file(scenario: Scenario, tmp_path: Path) -> None:
    """A second recording is the same file, byte for byte."""
    file = file_of(scenario)
    again = tmp_path / file.name
    provenance = tape.load(file)[0]
    if provenance.server == recorder.VERTEX:
        pytest.skip("recorded from Vertex, which this test can't reach")
    recorder.record(scenario, again, provenance)

    assert again.read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), (
        "run `make record` and review the difference"
    )


def test_each_scenario_has_a_cassette() -> None:
    """Each scenario has a cassette, with the server, its version and the day of the recording."""
    files = sorted(recorder.CASSETTES.glob("*.yaml"))
    assert [file.stem for file in files] == sorted(BY_FILE)
    for file in files:
        provenance, exchanges = tape.load(file)
        scenario = BY_FILE[file.stem]
        assert provenance.scenario == scenario.about
        assert provenance.server in {recorder.EMULATOR, recorder.VERTEX}
        assert provenance.note == (scenario.note if provenance.server == recorder.EMULATOR else "")
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", provenance.version)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", provenance.day)
        assert exchanges


def test_the_page_shows_where_cassettes_are_from() -> None:
    """cassettes/README.md repeats what each cassette says about its origin."""
    page = (recorder.CASSETTES / "README.md").read_text(encoding="utf-8")
    servers = {tape.load(file)[0].server for file in recorder.CASSETTES.rglob("*.yaml")}

    assert page == recorder.readme(), "run `make record`"
    assert ("None of them has been recorded from Google" in page) is (recorder.VERTEX not in servers)


def test_every_error_has_a_cassette() -> None:
    """Every public error has a cassette, except that of a closed client, which sends nothing."""
    words = {name: re.sub(r"(?<=.)([A-Z])", r"-\1", name.removesuffix("Error")).lower() for name in errors.__all__}
    assert {
        f"error-{word}" for name, word in words.items() if name not in {"RegistryError", "ClientClosedError"}
    } <= BY_FILE.keys()


SECRETS = {
    "a token": r"(?i)bearer|ya29\.|authorization|access_token|api[-_]key",
    "a project ID": r"test-project",
    "a project number": rf"{project_number('test-project')}|projects/(?!PROJECT/)",
    "the routing header": r"(?i)x-goog-request-params|x-goog-user-project",
    "a user agent": r"(?i)user-agent|python-requests|python-urllib|vertex-registry/|x-goog-api-client",
    "a version of a library": r"(?i)gl-python|gapic|gccl|grpc/|rest/\d|gax/",
    "an address": r"127\.0\.0\.1|localhost|googleapis\.com(?!/google)",
    "an etag of the server": r'"etag": "(?!etag-\d{4}")',
    "a time of the recording": r'Time": "(?!2026-01-01T)',
}


@pytest.mark.parametrize("what", SECRETS)
def test_cassettes_have_no_secrets(what: str) -> None:
    """No cassette contains anything about the person or machine that recorded it."""
    found = {
        file.name: match[0]
        for file in recorder.CASSETTES.rglob("*.yaml")
        if (match := re.search(SECRETS[what], file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_token_is_not_written(tmp_path: Path) -> None:
    """A cassette contains neither the client's token nor headers that aren't in `KEPT`."""

    class Token(AnonymousCredentials):
        def before_request(self, request: object, method: str, url: str, headers: dict[str, str]) -> None:
            del request, method, url
            headers |= {"authorization": "Bearer ya29.secret", "x-goog-user-project": "somebody"}

    file = tmp_path / "token.yaml"
    with Emulator(grpc_port=None) as emulator, tape.recording(file, recorder.provenance(SCENARIOS[0])):
        settings = recorder.world(emulator.rest or "").settings | {"credentials": Token()}  # type: ignore[no-untyped-call]
        with RegistryClient(**settings) as registry:
            registry.register_version("churn", "gs://models/churn/1")
        for path in ("/token", "/v1/projects/-/serviceAccounts/somebody:generateAccessToken"):
            requests.post(f"{emulator.rest}{path}", data="refresh_token=ya29.secret", timeout=60)
        assert any("authorization" in request.metadata for request in emulator.requests())

    text = file.read_text(encoding="utf-8")
    assert [what for what, pattern in SECRETS.items() if re.search(pattern, text)] == []
    assert "somebody" not in text


def register_first_version(world: World, **change: object) -> None:
    """Make the calls of the scenario `first-registration`, with some arguments changed."""
    registry = world.connect()
    arguments = {"description": "a first try", "metadata": {"accuracy": 0.93, "team": "growth"}} | change
    registry.register_version(
        world.name,
        world.source(1),
        version_name="Release Candidate 1",
        stage=Stage.STAGING,
        aliases=["candidate"],
        model_description="who leaves",
        **arguments,  # type: ignore[arg-type]  # a change may be of any argument
    )
    world.connect().get_version(world.name, version_name="Release Candidate 1")


@pytest.mark.disable_socket
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"description": "a second try"}, ['-    "versionDescription": "a first try"', "a second try"]),
        ({"metadata": {"accuracy": 0.93, "team": "sales"}}, ['-    "team": "growth"', '+    "team": "sales"']),
    ],
)
def test_another_body(change: dict[str, object], shown: list[str]) -> None:
    """A request with another body fails, and the error shows the difference."""
    with (
        pytest.raises(CannotOverwriteExistingCassetteException) as caught,
        tape.replaying(file_of(BY_FILE["first-registration"])),
    ):
        register_first_version(recorder.world(recorder.NO_SERVER), **change)
    assert [text for text in shown if text not in str(caught.value)] == []
    assert "make record" in str(caught.value)
    assert "record_mode=" not in str(caught.value)  # vcrpy's own advice would change the cassette


@pytest.mark.disable_socket
def test_another_path_or_query() -> None:
    """An unrecorded request fails, and the error shows it."""
    with (
        pytest.raises(CannotOverwriteExistingCassetteException, match=r"(?s)models.*filter.*make record") as caught,
        tape.replaying(file_of(BY_FILE["first-registration"])),
    ):
        recorder.world(recorder.NO_SERVER).connect().get_model("another name")
    assert "record_mode=" not in str(caught.value)


@pytest.mark.disable_socket
def test_a_missing_request() -> None:
    """A recorded request that's no longer sent fails, and the error names it."""
    expected = scenarios._raises(NotFoundError)  # only the scenario's first call is made
    message = r"(?ms)^-GET .*models/churn.*make record"
    with pytest.raises(AssertionError, match=message), tape.replaying(NOT_FOUND), expected:
        recorder.world(recorder.NO_SERVER).connect().get_version("churn")


def test_another_answer() -> None:
    """A different answer is reported with its RPC, its field and both values."""
    _, exchanges = tape.load(file_of(BY_FILE["next-version"]))

    def alter(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        del target
        return status, body.replace(b'"zenml"', b'"somebody"') if method == "PATCH" else body

    with Emulator(grpc_port=None) as emulator, Proxy(emulator.rest or "", answer=alter) as proxy:
        found = questions.ask(exchanges, proxy.address)

    assert {(one.rpc, one.where, one.recorded, one.given) for one in found} == {
        ("UpdateModel", "labels.managed_by", "zenml", "somebody")
    }


@pytest.mark.parametrize(
    ("etag", "difference"),
    [
        (lambda count: f"{count}", ("etag", "the same as before", "another one")),
        (lambda _: "0", ("etag", "another one", "the same as before")),
    ],
    ids=["always another", "always the same"],
)
def test_other_etags(etag: Callable[[int], str], difference: tuple[str, str, str]) -> None:
    """The etags of both servers must change, or stay, at the same requests."""
    count = itertools.count()

    def remove_etag(method: str, target: str, body: bytes) -> tuple[str, bytes]:
        del method  # the server would reject an altered etag
        return target, re.sub(rb'"etag": "[^"]+"', b'"etag": ""', body)

    def alter(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        del method, target
        return status, re.sub(rb'"etag": "[^"]+"', lambda _: f'"etag": "{etag(next(count))}"'.encode(), body)

    _, exchanges = tape.load(file_of(BY_FILE["next-version"]))
    with Emulator(grpc_port=None) as emulator, Proxy(emulator.rest or "", request=remove_etag, answer=alter) as proxy:
        found = questions.ask(exchanges, proxy.address)

    assert difference in {(one.where.rpartition(".")[2], one.recorded, one.given) for one in found}


@pytest.mark.parametrize(
    ("created", "updated"), [("createTime", "updateTime"), ("versionCreateTime", "versionUpdateTime")]
)
def test_a_creation_after_the_last_change_is_reported(created: str, updated: str) -> None:
    """A creation time that's later than the last change is reported."""

    def alter(method: str, target: str, status: int, body: bytes) -> tuple[int, bytes]:
        del method, target
        return status, re.sub(rf'"{created}": "[^"]+"'.encode(), f'"{created}": "2999-01-01T00:00:00Z"'.encode(), body)

    _, exchanges = tape.load(file_of(BY_FILE["first-registration"]))
    with Emulator(grpc_port=None) as emulator, Proxy(emulator.rest or "", answer=alter) as proxy:
        found = questions.ask(exchanges, proxy.address)

    assert {(one.where.rpartition(".")[2], one.recorded, one.given) for one in found} == {
        (created, f"not after {updated}", f"after {updated}")
    }
