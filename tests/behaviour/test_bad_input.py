"""Mistakes: each raises one of this package's errors, before anything is sent if possible, and changes nothing.

`MISTAKES` is the table that docs/errors.md shows.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.behaviour.conftest import LOCATION, PROJECT
from tests.behaviour.incompressible import incompressible
from vertex_registry import (
    AuthenticationError,
    ClientClosedError,
    InvalidArgumentError,
    NotFoundError,
    RegistryClient,
    Retry,
    UnavailableError,
)
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.behaviour.conftest import Clock, Connect, NewName, NewSource
    from vertex_registry import ModelVersion, RegistryError


BUCKET = "gs://vr-test-artifacts"


UNSEEN = (
    "tab\there", "line\nbreak", "zero\u200bwidth", "join\u200der", "\ufeffmark", "right\u202eleft", "soft\u00ad",
    " before", "after ", "\u3000wide", "no\u00a0break", "\u3164", "bell\x07", "delete\x7f", "next\x85line",
    "line\u2028", "tag\U000e0041", "selected\ufe0f",
)  # fmt: skip

ELSEWHERE = (
    "https://storage.googleapis.com/bucket/dir",
    "https://storage.cloud.google.com/bucket/dir/",
    "https://storage.cloud.google.com/bucket/dir?authuser=1",
    "https://bucket.storage.googleapis.com/dir",
    "https://console.cloud.google.com/storage/browser/bucket/dir;tab=objects?project=acme",
    "https://storage.googleapis.com/storage/v1/b/bucket/o/dir",
    "http://storage.googleapis.com/bucket/dir",
    "/gcs/bucket/dir",
    "gcs://bucket/dir",
)


@attrs.frozen
class Mistake:
    """A mistake: the calls that make it, their error, and a part of the message.

    Attributes:
        sent: Whether the mistake can only be detected after a request.
    """

    what: str
    error: type[RegistryError]
    says: str
    calls: tuple[Callable[[RegistryClient, str, str], Any], ...]
    sent: bool = False


MODEL_FILES = [".joblib", ".pkl", ".pickle", ".bst", ".mar", ".pb", ".pbtxt", ".onnx", ".pt", ".h5", ".keras"]


def registering(end: str) -> Callable[[RegistryClient, str, str], Any]:
    """Return a function that registers a source with this ending."""
    return lambda r, n, s: r.register_version(n, s + end)


def nested(depth: int) -> dict[str, Any]:
    """Return metadata that is nested this deep."""
    inner: Any = 1
    for _ in range(depth - 1):
        inner = [inner]
    return {"a": inner}


def closed(registry: RegistryClient) -> RegistryClient:
    registry.close()
    return registry


MISTAKES = (
    Mistake(
        "a name that's empty or longer than 128 characters",
        InvalidArgumentError,
        "name",
        (
            lambda r, n, s: r.register_version("", s),
            lambda r, n, s: r.register_version("x" * 129, s),
            lambda r, n, s: r.get_version(""),
            lambda r, n, s: r.list_versions(""),
            lambda r, n, s: r.delete_model(""),
            lambda r, n, s: r.latest_version(""),
            lambda r, n, s: r.latest_version(None),  # type: ignore[arg-type]  # that is the point
            lambda r, n, s: r.stage_history(None),  # type: ignore[arg-type]  # likewise
            lambda r, n, s: r.get_model("\ud800"),
            lambda r, n, s: r.register_version(7, s),  # type: ignore[arg-type]  # that is the point
        ),
    ),
    Mistake(
        "a resource name in another location, or with a version in it",
        InvalidArgumentError,
        "location|separately",
        (
            lambda r, n, s: r.get_model("projects/test-project/locations/europe-west4/models/1"),
            lambda r, n, s: r.get_version("projects/test-project/locations/us-central1/models/1@2"),
        ),
    ),
    Mistake(
        "a resource name in another project",
        InvalidArgumentError,
        "another project",
        (lambda r, n, s: r.get_model("projects/somebody-else/locations/us-central1/models/1"),),
        sent=True,
    ),
    Mistake(
        "a local path as source, without a staging bucket",
        InvalidArgumentError,
        "staging_bucket",
        (
            lambda r, n, s: r.register_version(n, "."),
            lambda r, n, s: r.register_version(n, Path.cwd()),
        ),
    ),
    Mistake(
        "a local path that doesn't exist, without a staging bucket",
        InvalidArgumentError,
        "doesn't exist on this machine.*gs://bucket/directory",
        (
            lambda r, n, s: r.register_version(n, "./no-such-model"),
            lambda r, n, s: r.register_version(n, Path("/no/such/model")),
        ),
    ),
    Mistake(
        "a new model's name with characters that can't be seen, or spaces around it",
        InvalidArgumentError,
        "(can't be seen|begins or ends with a space).*full resource name",
        tuple(
            verb
            for name in UNSEEN
            for verb in (
                lambda r, n, s, name=name: r.register_version(name, s),
                lambda r, n, s, name=name: r.upload(s, name=name, staging_bucket=BUCKET),
            )
        ),
    ),
    Mistake(
        "a folder in Cloud Storage in another form than `gs://`",
        InvalidArgumentError,
        "Pass 'gs://bucket/dir'",
        tuple(
            verb
            for there in ELSEWHERE
            for verb in (
                lambda r, n, s, there=there: r.register_version(n, there),
                lambda r, n, s, there=there: r.register_version(n, there, staging_bucket=BUCKET),
                lambda r, n, s, there=there: r.register_version(n, s, staging_bucket=there),
                lambda r, n, s, there=there: r.upload(there, name=n, staging_bucket=BUCKET),
                lambda r, n, s, there=there: r.download(there),
            )
        ),
    ),
    Mistake(
        "a source that isn't in Cloud Storage",
        InvalidArgumentError,
        "gs://bucket/directory",
        (
            lambda r, n, s: r.register_version(n, "s3://bucket/model"),
            lambda r, n, s: r.register_version(n, "https://example.com/model"),
            lambda r, n, s: r.register_version(n, ""),
        ),
    ),
    Mistake(
        "an invalid bucket name, or a bucket without a directory",
        InvalidArgumentError,
        "bucket",
        (
            lambda r, n, s: r.register_version(n, "gs://Bucket/model"),
            lambda r, n, s: r.register_version(n, "gs://ab/model"),
            lambda r, n, s: r.register_version(n, "gs:///model"),
            lambda r, n, s: r.register_version(n, "gs://10.0.0.1/model"),
            lambda r, n, s: r.register_version(n, "gs://-bucket/model"),
            lambda r, n, s: r.register_version(n, BUCKET),
            lambda r, n, s: r.register_version(n, BUCKET + "/"),
        ),
    ),
    Mistake(
        "a source that's a file",
        InvalidArgumentError,
        "is a file",
        tuple(registering(f"/model{end}") for end in MODEL_FILES),
    ),
    Mistake(
        "an alias that Vertex doesn't allow",
        InvalidArgumentError,
        "alias",
        (
            *tuple(
                lambda r, n, s, alias=alias: r.register_version(n, s, aliases=[alias])
                for alias in ("v1.0", "Prod", "x", "2", "", "prod-", "pro_d", "a" * 129, "vr-mine")
            ),
            lambda r, n, s: r.add_aliases(n, 1, ["v1.0"]),
            lambda r, n, s: r.remove_aliases(n, 1, ["Prod"]),
            lambda r, n, s: r.add_aliases(n, 1, "candidate"),
            lambda r, n, s: r.add_aliases(n, 1, None),  # type: ignore[arg-type]  # that is the point
        ),
    ),
    Mistake(
        "a source that's neither a string nor a path",
        InvalidArgumentError,
        r"string \('gs://bucket/directory'\) or a path",
        (
            lambda r, n, s: r.register_version(n, None),  # type: ignore[arg-type]  # that is the point
            lambda r, n, s: r.register_version(n, 3),  # type: ignore[arg-type]  # likewise
        ),
    ),
    Mistake(
        "the alias `default` with `make_default=False`",
        InvalidArgumentError,
        "make_default=False",
        (lambda r, n, s: r.register_version(n, s, aliases=["candidate", "default"], make_default=False),),
    ),
    Mistake(
        "removing the alias `default`",
        InvalidArgumentError,
        "set_default",
        (lambda r, n, s: r.remove_aliases(n, 1, ["default"]),),
    ),
    Mistake(
        "reading a version that doesn't or can't exist",
        NotFoundError,
        "has no version",
        (
            lambda r, n, s: r.get_version(n, 99),
            lambda r, n, s: r.get_version(n, "no-such-alias"),
            lambda r, n, s: r.get_version(n, version_name="no such name"),
            lambda r, n, s: r.get_version(n, "v1.0"),
            lambda r, n, s: r.get_version(n, ""),
            lambda r, n, s: r.get_version(n, 0),
            lambda r, n, s: r.get_version(n, None),  # type: ignore[arg-type]  # that is the point
        ),
        sent=True,
    ),
    Mistake(
        "changing a version that doesn't exist",
        NotFoundError,
        "has no version",
        (
            lambda r, n, s: r.set_stage(n, 99, "Production"),
            lambda r, n, s: r.set_stage(n, 99, "Production", archive_existing=True),
            lambda r, n, s: r.update_version(n, 99, description="x"),
            lambda r, n, s: r.add_aliases(n, 99, ["candidate"]),
            lambda r, n, s: r.set_default(n, 99),
            lambda r, n, s: r.delete_version(n, 99),
        ),
        sent=True,
    ),
    Mistake(
        "a check of the source that doesn't exist",
        InvalidArgumentError,
        "isn't 'auto', True or False",
        (
            lambda r, n, s: r.register_version(n, s, check_source=1),  # type: ignore[arg-type]  # that is the point
            lambda r, n, s: r.register_version(n, s, check_source=None),  # type: ignore[arg-type]  # likewise
            lambda r, n, s: r.register_version(n, s, check_source=[]),  # type: ignore[arg-type]  # likewise
            lambda r, n, s: r.register_version(n, s, check_source="never"),  # type: ignore[arg-type]  # likewise
        ),
    ),
    Mistake(
        "changing a version that can't exist",
        InvalidArgumentError,
        "be a version",
        (
            lambda r, n, s: r.set_stage(n, "v1.0", "Production"),
            lambda r, n, s: r.update_version(n, "v1.0", description="x"),
            lambda r, n, s: r.add_aliases(n, "v1.0", ["candidate"]),
            lambda r, n, s: r.set_default(n, 0),
            lambda r, n, s: r.delete_version(n, ""),
            lambda r, n, s: r.delete_version(n, None),  # type: ignore[arg-type]  # that is the point
            lambda r, n, s: r.delete_version(n, True),
        ),
    ),
    Mistake(
        "a new name that a model can't have",
        InvalidArgumentError,
        "name",
        (
            lambda r, n, s: r.rename_model(n, ""),
            lambda r, n, s: r.rename_model(n, "x" * 129),
            lambda r, n, s: r.rename_model(n, "projects/p/locations/us-central1/models/1"),
            lambda r, n, s: r.rename_model(n, " churn"),
            lambda r, n, s: r.rename_model(n, None),  # type: ignore[arg-type]  # that is the point
        ),
    ),
    Mistake(
        "a model that doesn't exist",
        NotFoundError,
        "no model|doesn't exist",
        (
            lambda r, n, s: r.get_version(n + "!"),
            lambda r, n, s: r.get_model(n + "!"),
            lambda r, n, s: next(r.list_versions(n + "!")),
            lambda r, n, s: r.stage_history(n + "!"),
            lambda r, n, s: r.update_model(n + "!", description="x"),
            lambda r, n, s: r.rename_model(n + "!", "churn"),
            lambda r, n, s: r.set_stage(n + "!", 1, "Production"),
            lambda r, n, s: r.delete_model(n + "!"),
            lambda r, n, s: r.register_version("projects/test-project/locations/us-central1/models/no-such", s),
        ),
        sent=True,
    ),
    Mistake(
        "a stage that doesn't exist, or that doesn't go with `archive_existing`",
        InvalidArgumentError,
        "stage",
        (
            lambda r, n, s: r.set_stage(n, 1, "canary"),
            lambda r, n, s: r.register_version(n, s, stage="canary"),
            lambda r, n, s: r.list_versions(n, stage="canary"),
            lambda r, n, s: r.update_version(n, 1, stage="canary"),
            lambda r, n, s: r.set_stage(n, 1, "Archived", archive_existing=True),
            lambda r, n, s: r.register_version(n, s, archive_existing=True),
        ),
    ),
    Mistake(
        "metadata that isn't a JSON object",
        InvalidArgumentError,
        "metadata|JSON",
        (
            *(
                lambda r, n, s, value=value: r.register_version(n, s, metadata={"key": value})
                for value in (
                    float("nan"),
                    float("inf"),
                    (1, 2),
                    {1: 2},
                    b"x",
                    {"a": [object()]},
                    {1},
                    dt.date(2026, 1, 1),
                )
            ),
            lambda r, n, s: r.register_version(n, s, metadata=[1]),  # type: ignore[arg-type]  # that is the point
            lambda r, n, s: r.update_version(n, 1, metadata={7: "x"}),  # type: ignore[dict-item]  # likewise
            lambda r, n, s: r.update_version(n, 1, metadata={"a": 1}, remove_metadata=["a"]),
            lambda r, n, s: r.update_version(n, 1, remove_metadata="a"),
        ),
    ),
    Mistake(
        "metadata nested more than 100 levels deep, or with a number of thousands of digits",
        InvalidArgumentError,
        r"nested more than 100 levels deep.*|metadata\['a'\]\['b'\] is a number with too many digits",
        (
            lambda r, n, s: r.register_version(n, s, metadata=nested(101)),
            lambda r, n, s: r.register_version(n, s, metadata=nested(985)),
            lambda r, n, s: r.register_version(n, s, metadata=nested(100_000)),
            lambda r, n, s: r.update_version(n, 1, metadata=nested(101)),
            lambda r, n, s: r.register_version(n, s, metadata={"a": {"b": 10**5000}}),
        ),
    ),
    Mistake(
        "metadata that doesn't fit into the version's labels",
        InvalidArgumentError,
        "Vertex allows 64",
        (
            lambda r, n, s: r.register_version(n, s, metadata=incompressible(64)),
            lambda r, n, s: r.register_version(n, s, metadata=incompressible(60)),
        ),
    ),
    Mistake(
        "a label that Vertex doesn't allow, or that this package uses itself",
        InvalidArgumentError,
        "label",
        (
            lambda r, n, s: r.update_model(n, labels={"Team": "growth"}),
            lambda r, n, s: r.update_model(n, labels={"stage": "production"}),
            lambda r, n, s: r.update_model(n, labels=["team"]),  # type: ignore[arg-type]  # that is the point
            lambda r, n, s: r.list_models(labels=7),  # type: ignore[arg-type]  # likewise
            lambda r, n, s: r.list_models(labels={"a": 1}),  # type: ignore[dict-item]  # likewise
            lambda r, n, s: r.list_models(labels={1: "a"}),  # type: ignore[dict-item]  # likewise
        ),
    ),
    Mistake(
        "a datetime without a time zone, or an invalid limit or order",
        InvalidArgumentError,
        "time zone|limit|order_by",
        (
            lambda r, n, s: r.list_versions(n, created_after=dt.datetime(2026, 1, 1)),  # noqa: DTZ001
            lambda r, n, s: r.list_versions(n, created_before="2026-01-01"),  # type: ignore[arg-type]
            lambda r, n, s: r.list_versions(n, limit=-1),
            lambda r, n, s: r.list_models(limit=1.5),  # type: ignore[arg-type]
            lambda r, n, s: r.list_models(order_by="age"),  # type: ignore[arg-type]
            lambda r, n, s: r.list_models(order_by=["name"]),  # type: ignore[arg-type]
        ),
    ),
    Mistake(
        "a container that doesn't exist",
        InvalidArgumentError,
        "image|container",
        (
            lambda r, n, s: r.register_version(n, s, container="skleanr"),
            lambda r, n, s: r.register_version(n, s, container="sklearn:9.9"),
            lambda r, n, s: r.register_version(n, s, container=7),  # type: ignore[arg-type]  # that is the point
        ),
    ),
    Mistake(
        "a closed client",
        ClientClosedError,
        "closed",
        (
            lambda r, n, s: closed(r).get_version(n),
            lambda r, n, s: closed(r).list_versions(n),
            lambda r, n, s: closed(r).list_models(),
            lambda r, n, s: closed(r).register_version(n, s),
        ),
    ),
)


def cases(*, sent: bool) -> list[Any]:
    """Return a case for each call whose mistake is detected before anything is sent, or only afterwards."""
    return [
        pytest.param(mistake, call, id=f"{mistake.what} {index}")
        for mistake in MISTAKES
        if mistake.sent is sent
        for index, call in enumerate(mistake.calls)
    ]


def make(mistake: Mistake, call: Callable[[RegistryClient, str, str], Any], *arguments: Any) -> None:
    """Make a mistake, and check its error."""
    with pytest.raises(mistake.error, match=mistake.says) as caught:
        call(*arguments)
    assert type(caught.value) is mistake.error
    assert str(caught.value).endswith((".", "]."))
    assert len(str(caught.value)) <= 450


@pytest.fixture(scope="module", name="churn")
def _churn() -> Iterator[tuple[Emulator, RegistryClient, ModelVersion]]:
    """Return an emulator, a client of it, and a version. No mistake changes them, so all mistakes share them."""
    with (
        Emulator(rest_port=None) as emulator,
        RegistryClient(project=PROJECT, location=LOCATION, endpoint=emulator.grpc) as onlooker,
    ):
        yield emulator, onlooker, onlooker.register_version("churn", f"{BUCKET}/1")


@pytest.mark.emulator_only("nothing is sent")
@pytest.mark.parametrize(("mistake", "call"), cases(sent=False))
def test_mistakes(
    churn: tuple[Emulator, RegistryClient, ModelVersion],
    mistake: Mistake,
    call: Callable[[RegistryClient, str, str], Any],
) -> None:
    """A mistake that can be detected in advance raises its error before anything is sent."""
    emulator, onlooker, before = churn
    sent = len(emulator.requests())

    with RegistryClient(project=PROJECT, location=LOCATION, endpoint=emulator.grpc) as registry:
        make(mistake, call, registry, "churn", f"{BUCKET}/2")

    assert len(emulator.requests()) == sent
    assert list(onlooker.list_versions("churn")) == [before]


@pytest.mark.no_switches
@pytest.mark.parametrize(("mistake", "call"), cases(sent=True))
def test_mistakes_that_only_vertex_knows(
    connect: Connect,
    name: NewName,
    source: NewSource,
    mistake: Mistake,
    call: Callable[[RegistryClient, str, str], Any],
) -> None:
    """Other mistakes are only detected after a request, and change nothing."""
    registry, onlooker, churn = connect(), connect(), name()
    before = registry.register_version(churn, source())

    make(mistake, call, registry, churn, source())

    assert list(onlooker.list_versions(churn)) == [before]


@pytest.mark.emulator_only("nothing lies in these directories")
@pytest.mark.no_switches
def test_dots_are_fine(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A directory may have dots in its name. With a slash at the end, it may even look like a file."""
    for end in ("/v1.2", "/model.v2", "/model.joblib/", "/model.pkl/1"):
        assert registry.register_version(name(), source() + end).artifact_uri.endswith(end)


def test_the_docs_show_the_table() -> None:
    """docs/errors.md lists every mistake with its error."""
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = [f"| {mistake.what} | `{mistake.error.__name__}` |" for mistake in MISTAKES]

    assert [row for row in rows if row not in page] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"transport": "soap"},
        {"endpoint": "ftp://127.0.0.1:1"},
        {"endpoint": "http://127.0.0.1:1", "transport": "grpc"},
        {"endpoint": "http://vertex.example.com", "credentials": object()},
        {"endpoint": "user@127.0.0.1:1"},
        {"project": "a/b"},
        {"location": "a b"},
        {"managed_by": "Me!"},
        {"actor": ""},
        {"project": "\u00e9"},
        {"project": "a%2fb"},
        {"project": 7},
        {"location": "Nowhere!"},
        {"location": 7},
        {"retry": 5},
        {"default_image": 3},
        {"default_image": ""},
        {"default_image": "nonsense"},
        {"credentials": 3},
        {"credentials": ["key.json"]},
        {"user_agent": "\u00e9"},
        {"user_agent": "a\nb"},
        {"user_agent": 3},
        {"now": 3},
        {"new_id": "id"},
    ],
)
def test_invalid_settings(settings: dict[str, Any]) -> None:
    """An impossible setting is an error when you create the client, and the error names it."""
    with pytest.raises(InvalidArgumentError) as caught:
        RegistryClient(**settings)
    assert str(caught.value).endswith(".")


def test_invalid_retries() -> None:
    """A budget that isn't a positive number of seconds is refused."""
    with pytest.raises(InvalidArgumentError, match="positive"):
        Retry(call_timeout=0)


@pytest.mark.no_switches
def test_an_emulator_that_is_not_running(
    connect: Connect, emulator: Emulator, clock: Clock, name: NewName, source: NewSource
) -> None:
    """If no server listens at the address, the error names it within the budget of a call."""
    registry = connect(retry=Retry(sleep=clock.sleep, clock=clock))
    emulator.close()

    calls: tuple[Callable[[], Any], ...] = (
        lambda: registry.get_version(name()),
        lambda: registry.register_version(name(), source()),
    )
    for call in calls:
        start = clock.time
        with pytest.raises(UnavailableError, match="127.0.0.1:") as caught:
            call()
        assert "emulator" in str(caught.value)
        assert clock.time - start <= 60


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, transport: Any) -> None:
    """Without credentials and without an emulator, the error says which command to run."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "VERTEX_AI_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)

    with RegistryClient(project="acme", transport=transport) as registry:
        with pytest.raises(AuthenticationError, match="gcloud auth application-default login") as caught:
            registry.get_version("churn")
        assert "VERTEX_AI_EMULATOR_HOST" in str(caught.value)
