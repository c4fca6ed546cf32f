"""Quotas: how many requests a project can send to a region in a minute, and how the emulator refuses more."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.rpc import error_details_pb2

from vertex_registry.emulator import Emulator, Quota
from vertex_registry.emulator.__main__ import main
from vertex_registry.emulator._quota import parse_quota

if TYPE_CHECKING:
    from collections.abc import Callable

    # Google's client takes dictionaries where its types name messages.
    Client = Any
    Start = Callable[..., Emulator]
    Connect = Callable[..., Client]
    Model = Callable[..., dict[str, Any]]

TRANSPORTS = pytest.mark.parametrize("transport", ["grpc", "rest"])


class Clock:
    """The emulator's clock, which a test sets."""

    def __init__(self) -> None:
        self.second = 0.0

    def __call__(self) -> dt.datetime:
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=self.second)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def details(error: exceptions.TooManyRequests) -> dict[str, Any]:
    """Return the details of an error by the names of their types. Over REST they're JSON."""
    found = {}
    for detail in error.details:
        if isinstance(detail, dict):
            found[detail["@type"].rpartition(".")[2]] = detail
        else:
            found[type(detail).__name__] = detail
    return found


@TRANSPORTS
def test_more_than_the_quota_is_refused(
    start: Start, connect: Connect, clock: Clock, parent: str, transport: str
) -> None:
    """The error names the quota and says when the minute is over. Then requests are accepted again."""
    emulator = start(quota=Quota(requests=2), now=clock)
    client = connect(emulator, transport)
    clock.second = 45
    for _ in range(2):
        list(client.list_models(parent=parent))
    with pytest.raises(exceptions.TooManyRequests, match="Quota exceeded for quota metric 'Resource management") as hit:
        list(client.list_models(parent=parent))

    said = details(hit.value)
    if transport == "grpc":
        info, retry = said["ErrorInfo"], said["RetryInfo"]
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert (info.reason, info.domain) == ("RATE_LIMIT_EXCEEDED", "googleapis.com")
        assert info.metadata["quota_limit_value"] == "2"
        assert info.metadata["quota_location"] == "us-central1"
        assert info.metadata["consumer"] == "projects/4711"
        assert retry.retry_delay.seconds == 15
    else:
        assert said["ErrorInfo"]["reason"] == "RATE_LIMIT_EXCEEDED"
        assert said["RetryInfo"]["retryDelay"] == "15s"
        assert hit.value.response.headers["Retry-After"] == "15"
    clock.second = 60
    list(client.list_models(parent=parent))


def test_each_project_and_region_has_a_quota_of_its_own(start: Start, connect: Connect, clock: Clock) -> None:
    """One project doesn't use up another's quota; its ID and its number share one."""
    client = connect(start(quota=Quota(requests=1), now=clock))
    for parent in ("projects/acme/locations/us-central1", "projects/acme/locations/us-east1", "projects/1/locations/a"):
        list(client.list_models(parent=parent))
        with pytest.raises(exceptions.TooManyRequests):
            list(client.list_models(parent=parent))
    number = client.get_location(request={"name": "projects/acme/locations/europe-west1"}).name.split("/")[1]
    with pytest.raises(exceptions.TooManyRequests):
        list(client.list_models(parent=f"projects/{number}/locations/us-central1"))


def test_submissions_have_a_quota_of_their_own(
    start: Start, connect: Connect, clock: Clock, parent: str, model: Model
) -> None:
    """Uploads and deletions count as submissions, and all other calls as requests. The quotas are independent."""
    client = connect(start(quota=Quota(requests=1, submissions=2), now=clock))
    list(client.list_models(parent=parent))
    client.upload_model({"parent": parent, "model": model(), "model_id": "churn"})
    with pytest.raises(exceptions.TooManyRequests, match="Resource management"):
        client.get_model(name=f"{parent}/models/churn")
    client.delete_model(name=f"{parent}/models/churn")
    with pytest.raises(exceptions.TooManyRequests, match="Job or LRO submission"):
        client.upload_model({"parent": parent, "model": model()})
    clock.second = 60
    assert list(client.list_models(parent=parent)) == []


def test_a_refused_request_does_nothing(
    start: Start, connect: Connect, clock: Clock, parent: str, model: Model
) -> None:
    """A refused request has no effect, isn't counted and uses no planned fault, but it's recorded."""
    emulator = start(quota=Quota(requests=1, submissions=0), now=clock)
    client = connect(emulator)
    emulator.fail("UploadModel", "UNAVAILABLE")
    for _ in range(3):
        with pytest.raises(exceptions.TooManyRequests):
            client.upload_model({"parent": parent, "model": model()})
    assert [request.rpc for request in emulator.requests()] == ["UploadModel"] * 3
    assert len(emulator.faults()) == 1
    emulator.forget_faults()
    assert list(client.list_models(parent=parent)) == []


def test_a_quota_is_set_and_removed(start: Start, connect: Connect, clock: Clock, parent: str) -> None:
    """You can change a quota at any time. Setting it, and a reset, start a new count."""
    emulator = start(now=clock)
    client = connect(emulator)
    assert emulator.quota is None
    emulator.quota = Quota(requests=1, retry_info=False)
    for _ in range(2):
        list(client.list_models(parent=parent))
        with pytest.raises(exceptions.TooManyRequests) as refused:
            list(client.list_models(parent=parent))
        assert "RetryInfo" not in details(refused.value)
        emulator.reset()
    list(client.list_models(parent=parent))
    clock.second = -600  # a clock that was set back doesn't open the quota
    with pytest.raises(exceptions.TooManyRequests):
        list(client.list_models(parent=parent))
    emulator.quota = None
    list(client.list_models(parent=parent))


def test_a_request_without_a_project_is_not_counted(start: Start, connect: Connect, clock: Clock) -> None:
    """For a malformed name, the error is about the name."""
    client = connect(start(quota=Quota(requests=0), now=clock))
    with pytest.raises(exceptions.InvalidArgument):
        client.get_model(name="churn")


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("", Quota()),
        ("requests=5", Quota(requests=5)),
        ("submissions=0, requests=7", Quota(requests=7, submissions=0)),
    ],
)
def test_a_quota_is_read(text: str, quota: Quota) -> None:
    """The command accepts the numbers of both quotas, and uses Google's numbers by default."""
    assert parse_quota(text) == quota


@pytest.mark.parametrize("text", ["5", "requests=", "requests=-1", "requests=1.5", "speed=1", "retry_info=1", ","])
def test_what_is_not_a_quota(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is reported, and nothing is started."""
    assert main(["--quota", text]) == 2
    assert "requests=600,submissions=60" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"requests": True}, {"submissions": -1}, {"requests": 1.5}, {"retry_info": 1}])
def test_a_wrong_quota(wrong: dict[str, Any]) -> None:
    """A quota is two whole numbers."""
    with pytest.raises(ValueError, match="quota|retry_info"):
        Quota(**wrong)
    with pytest.raises(ValueError, match="quota can't be 600"):
        Emulator(quota=600)  # type: ignore[arg-type]  # what somebody may try
