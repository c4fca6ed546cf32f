"""Faults are planned as data, apply to the next requests, and are reported if they aren't used."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud.aiplatform_v1.types import Model
from google.protobuf import field_mask_pb2
from google.rpc import error_details_pb2

from vertex_registry.emulator import Emulator
from vertex_registry.emulator._control import MOST_SHOWN_BYTES
from vertex_registry.emulator._dispatch import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    # Google's client takes dictionaries where its types name messages.
    Client = Any
    Start = Callable[..., Emulator]
    Connect = Callable[..., Client]
    Upload = Callable[..., str]

FAULTS = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
TRANSPORTS = pytest.mark.parametrize("transport", ["grpc", "rest"])


@TRANSPORTS
def test_a_fault_is_met_so_many_times(emulator: Emulator, connect: Connect, parent: str, transport: str) -> None:
    """A fault applies to the next requests of its RPC, to no others, and then it's used up."""
    client = connect(emulator, transport)
    emulator.fail("ListModels", "UNAVAILABLE", times=2)
    emulator.fail("ListModels", "RESOURCE_EXHAUSTED", message="Slower.")

    client.get_location(request={"name": parent})
    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable):
            client.list_models(parent=parent)
    assert [fault.code for fault in emulator.faults()] == ["RESOURCE_EXHAUSTED"]
    with pytest.raises(exceptions.TooManyRequests, match="Slower"):
        client.list_models(parent=parent)

    assert list(client.list_models(parent=parent)) == []
    assert emulator.faults() == ()


@TRANSPORTS
@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_a_request_is_carried_out_or_not(
    emulator: Emulator, connect: Connect, upload: Upload, parent: str, transport: str, when: str, made: int
) -> None:
    """With "before", the request has no effect. With "after", it has, but the response is lost."""
    client = connect(emulator, transport)
    emulator.fail("UploadModel", "UNAVAILABLE", when=when)

    with pytest.raises(exceptions.ServiceUnavailable):
        upload(client)

    assert len(list(client.list_models(parent=parent))) == made


@TRANSPORTS
@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_a_connection_is_dropped(
    emulator: Emulator, connect: Connect, upload: Upload, parent: str, transport: str, when: str, made: int
) -> None:
    """The client gets no response, whether or not the request took effect."""
    client = connect(emulator, transport)
    emulator.fail("UploadModel", drop=True, when=when)

    with pytest.raises((exceptions.ServiceUnavailable, requests.ConnectionError)):
        upload(client)

    assert len(list(client.list_models(parent=parent))) == made


def test_a_failure_asks_to_wait(emulator: Emulator, connect: Connect, parent: str) -> None:
    """Over gRPC there is a RetryInfo. Over HTTP there is also a Retry-After of whole seconds."""
    emulator.fail("ListModels", "UNAVAILABLE", retry_after=1.5, times=2)

    with pytest.raises(exceptions.ServiceUnavailable) as caught:
        connect(emulator).list_models(parent=parent)
    (detail,) = caught.value.details
    assert isinstance(detail, error_details_pb2.RetryInfo)
    assert detail.retry_delay.ToMilliseconds() == 1500
    answer = requests.get(f"{emulator.rest}/v1/{parent}/models", timeout=10)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert answer.json()["error"]["details"][0]["retryDelay"] == "1.500s"


@pytest.mark.parametrize("when", ["before", "after", "operation"])
def test_an_answer_is_delayed(emulator: Emulator, connect: Connect, parent: str, when: str) -> None:
    """A client that times out first can check later whether the request took effect."""
    client = connect(emulator)
    emulator.fail("UploadModel", "UNAVAILABLE" if when == "operation" else None, delay=30, when=when)
    request = {"parent": parent, "model": {"display_name": "x", "container_spec": {"image_uri": "x"}}}

    with pytest.raises(exceptions.DeadlineExceeded):
        client.upload_model(request, timeout=0.5)

    assert emulator.faults() == ()


def test_closing_ends_a_delay(parent: str) -> None:
    """Closing an emulator ends delays: a delayed call is answered, or fails."""
    emulator = Emulator()
    emulator.fail("ListModels", delay=3600)
    channel = grpc.insecure_channel(str(emulator.grpc))
    call: Any = channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels").future(
        BY_NAME["ListModels"].request(parent=parent).SerializeToString()
    )
    while not emulator.requests():
        pass

    emulator.close()

    call.exception(timeout=30)
    assert call.done()
    channel.close()


@TRANSPORTS
def test_an_etag_counts_as_stale(emulator: Emulator, connect: Connect, upload: Upload, transport: str) -> None:
    """The update is refused as if its etag were stale, and changes nothing."""
    client = connect(emulator, transport)
    name = upload(client)
    update = {"model": {"name": name, "labels": {"a": "b"}}, "update_mask": field_mask_pb2.FieldMask(paths=["labels"])}
    emulator.fail("UpdateModel", stale_etag=True)

    with pytest.raises((exceptions.Aborted, exceptions.Conflict)):
        client.update_model(update)
    assert dict(client.get_model(name=name).labels) == {}

    client.update_model(update)
    assert dict(client.get_model(name=name).labels) == {"a": "b"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rpc": "Nonsense", "code": "UNAVAILABLE"}, "The RPC 'Nonsense' doesn't exist"),
        ({"rpc": "GetModel", "code": "NONSENSE"}, "The code 'NONSENSE' doesn't exist"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "when": "never"}, "before, after, operation"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "times": 0}, "at least once"),
        ({"rpc": "GetModel", "delay": -1.0}, "number of seconds"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "retry_after": -1.0}, "number of seconds"),
        ({"rpc": "GetModel", "retry_after": 1.0}, "needs a code"),
        ({"rpc": "UploadModel", "when": "operation"}, "needs a code"),
        ({"rpc": "GetModel"}, "a code, a delay, a dropped connection or a stale etag"),
        ({"rpc": "GetModel", "stale_etag": True}, "Only UpdateModel"),
        ({"rpc": "UpdateModel", "stale_etag": True, "code": "UNAVAILABLE"}, "is refused for that"),
        ({"rpc": "UpdateModel", "stale_etag": True, "drop": True}, "is refused for that"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "drop": True}, "has no code"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "when": "operation"}, "doesn't begin an operation"),
        ({"rpc": "GetOperation", "code": "UNAVAILABLE", "when": "operation"}, "doesn't begin an operation"),
        ({"rpc": "UploadModel", "code": "ABORTED", "when": "operation", "drop": True}, "can't be dropped"),
        ({"rpc": {}, "code": "UNAVAILABLE"}, "The rpc of a fault is a name"),
        ({"rpc": "GetModel", "code": ["UNAVAILABLE"]}, "The code of a fault is a name"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "times": 1.5}, "a whole number"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "times": True}, "a whole number"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "when": 1}, "a word"),
        ({"rpc": "GetModel", "delay": "1"}, "a number of seconds"),
        ({"rpc": "GetModel", "delay": True}, "a number of seconds"),
        ({"rpc": "GetModel", "drop": "no"}, "true or false"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "retry_after": True}, "a number of seconds"),
        ({"rpc": "UpdateModel", "stale_etag": "false"}, "true or false"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "message": 5}, "The message of a fault is text"),
        ({"rpc": "GetModel", "code": "UNAVAILABLE", "message": "\ud800"}, "UTF-8"),
    ],
)
def test_an_impossible_fault_is_refused(emulator: Emulator, arguments: dict[str, Any], told: str) -> None:
    """A fault that couldn't happen is refused when it's planned, in Python and over HTTP."""
    with pytest.raises(ValueError, match=told):
        emulator.fail(**arguments)
    answer = requests.post(f"{emulator.rest}/emulator/faults", json=arguments, timeout=10)

    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert emulator.faults() == ()


@TRANSPORTS
def test_a_lost_answer_needs_an_answer(emulator: Emulator, connect: Connect, parent: str, transport: str) -> None:
    """A request that's refused anyway leaves the fault for the next request."""
    client = connect(emulator, transport)
    emulator.fail("GetModel", "UNAVAILABLE", when="after", times=2)
    emulator.fail("UploadModel", "UNAVAILABLE", when="operation")
    planned = emulator.faults()

    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{parent}/models/nobody")
    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        client.upload_model(parent=parent, model={"display_name": ""})

    assert caught.value.code == 400
    assert set(emulator.faults()) == set(planned)
    emulator.forget_faults()


@TRANSPORTS
def test_what_waits_is_not_carried_out_after_a_reset(
    emulator: Emulator, connect: Connect, upload: Upload, parent: str, transport: str
) -> None:
    """A delayed request has no effect after a reset, so the next test doesn't meet it."""
    client = connect(emulator, transport)
    emulator.fail("UploadModel", delay=3600)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(upload, client)
        while not emulator.requests():
            pass
        emulator.reset()
        error = late.exception(timeout=30)

    assert error is not None
    assert list(client.list_models(parent=parent)) == []


def test_planned_faults_can_be_forgotten(emulator: Emulator, client: Client, parent: str) -> None:
    """After faults are forgotten, no request fails. Created models stay."""
    emulator.fail("ListModels", "UNAVAILABLE", times=5)

    emulator.forget_faults()

    assert emulator.faults() == ()
    assert list(client.list_models(parent=parent)) == []


def test_leaving_with_a_planned_fault_left_fails(connect: Connect, parent: str) -> None:
    """The error names the faults that no request met. The emulator is closed first."""
    emulator = Emulator()
    emulator.fail("ListModels", "UNAVAILABLE", times=3)
    emulator.fail("GetModel", delay=1)
    emulator.fail("GetModel", drop=True)
    emulator.fail("UpdateModel", stale_etag=True)
    with pytest.raises(exceptions.ServiceUnavailable):
        connect(emulator).list_models(parent=parent)

    with pytest.raises(AssertionError) as caught, emulator:
        pass

    assert str(caught.value) == (
        "No request met these planned faults: ListModels: UNAVAILABLE, 2 times; GetModel: a delay; GetModel: a dropped"
        " connection; UpdateModel: a stale etag. If that's intended, call forget_faults()."
    )
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{emulator.rest}/emulator/health", timeout=10)


def test_leaving_replaces_no_other_exception() -> None:
    """If the test fails, its own exception is raised instead. Forgotten faults don't count."""
    emulator = Emulator(grpc_port=None, rest_port=None)
    emulator.fail("GetModel", "ABORTED")
    with pytest.raises(ZeroDivisionError), emulator:
        raise ZeroDivisionError
    for take_back in (Emulator.reset, Emulator.forget_faults):
        with Emulator(grpc_port=None, rest_port=None) as other:
            other.fail("GetModel", "ABORTED")
            take_back(other)


def test_closing_ignores_planned_faults() -> None:
    """close() ignores unused faults, because it may be called while another exception is raised."""
    emulator = Emulator(grpc_port=None, rest_port=None)
    emulator.fail("GetModel", "ABORTED")

    emulator.close()


def test_other_processes_plan_faults_over_http(emulator: Emulator, connect: Connect, parent: str) -> None:
    """Other processes can plan faults, list the unused ones, read the requests, and reset everything."""
    base = f"{emulator.rest}/emulator"
    planned = requests.post(
        f"{base}/faults", json={"rpc": "ListModels", "code": "ABORTED", "retryAfter": 1, "times": 2}, timeout=10
    )
    assert planned.json()["faults"][0]["retry_after"] == 1
    with pytest.raises(exceptions.Aborted):
        connect(emulator).list_models(parent=parent)
    assert requests.get(f"{base}/faults", timeout=10).json()["faults"][0]["times"] == 1
    (came,) = requests.get(f"{base}/requests", timeout=10).json()["requests"]
    assert (came["rpc"], came["api"], came["transport"]) == ("ListModels", "v1", "grpc")
    assert came["message"] == {"parent": parent}
    assert requests.get(f"{base}/health", timeout=10).json() == {"status": "ok"}

    assert requests.post(f"{base}/reset", timeout=10).json() == {}

    assert emulator.faults() == ()
    assert emulator.requests() == ()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "This isn't a fault."),
        (b"[]", "A fault is a JSON object."),
        (b'{"rpc": 1}', "This isn't a fault."),
        (b'{"nonsense": 1}', "This isn't a fault."),
        (b'{"rpc": "GetModel", "times": "x"}', "This isn't a fault."),
        (b"{", "Invalid JSON payload received."),
        (b"\xff", "It is not UTF-8."),
        (b'{"rpc": "GetModel", "code": "ABORTED", "code": "INTERNAL"}', "A name comes twice"),
        (b'{"rpc": "GetModel", "code": "ABORTED", "retryAfter": 1, "retry_after": 2}', "A name comes twice"),
    ],
)
def test_an_invalid_fault_is_refused(emulator: Emulator, body: bytes, told: str) -> None:
    """An invalid fault is refused with 400 and a sentence, and isn't planned."""
    answer = requests.post(f"{emulator.rest}/emulator/faults", data=body, timeout=10)

    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert emulator.faults() == ()


@TRANSPORTS
def test_requests_are_written_down_without_their_tokens(emulator: Emulator, parent: str, transport: str) -> None:
    """The message and the metadata are recorded, with the SHA-256 of a token to compare it by."""
    secret = "ya29.very-secret"  # noqa: S105 - it opens nothing
    if transport == "grpc":
        with grpc.insecure_channel(str(emulator.grpc)) as channel:
            channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels")(
                BY_NAME["ListModels"].request(parent=parent).SerializeToString(),
                metadata=(("authorization", f"Bearer {secret}"), ("x-bin", b"\x01")),
            )
    else:
        headers = {"Authorization": f"Bearer {secret}"}
        assert requests.get(f"{emulator.rest}/v1/{parent}/models", headers=headers, timeout=10).ok
        shown = requests.get(f"{emulator.rest}/emulator/requests", headers={"Authorization": secret}, timeout=10)
        assert secret not in shown.text

    (came,) = emulator.requests()

    assert came.message.parent == parent
    assert came.metadata["authorization"] == f"Bearer sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
    assert secret not in repr(emulator.requests())


@TRANSPORTS
@pytest.mark.parametrize(
    ("name", "value", "scheme", "hidden"),
    [
        ("authorization", "Bearer s3cret and s3cret", "Bearer ", "s3cret and s3cret"),
        ("authorization", "bearer s3cret ", "bearer ", "s3cret"),
        ("authorization", "s3cret", "", "s3cret"),
        ("authorization", 'Digest username="s3cret", response="x"', "", 'Digest username="s3cret", response="x"'),
        ("x-serverless-authorization", "Bearer s3cret", "Bearer ", "s3cret"),
        ("proxy-authorization", "Basic s3cret", "Basic ", "s3cret"),
        ("cookie", "a=s3cret; b=c", "", "a=s3cret; b=c"),
        ("x-goog-api-key", "s3cret", "", "s3cret"),
        ("referer", "http://x/?access_token=s3cret", "", "http://x/?access_token=s3cret"),
        ("x-amz-security-token", "s3cret", "", "s3cret"),
        ("x-my-credentials", "s3cret", "", "s3cret"),
        ("x-goog-iap-jwt-assertion", "s3cret", "", "s3cret"),
        ("x-auth", "s3cret", "", "s3cret"),
        ("x-secret", "s3cret", "", "s3cret"),
        ("x-password", "s3cret", "", "s3cret"),
        ("x-jwt", "s3cret", "", "s3cret"),
        ("x-pass", "s3cret", "", "s3cret"),
        ("api_pwd", "s3cret", "", "s3cret"),
        ("x-session-id", "s3cret", "", "s3cret"),
        ("x-original-url", "https://x/?token=s3cret", "", "https://x/?token=s3cret"),
        ("x-nobody-thought-of", "s3cret", "", "s3cret"),
        ("x-goog-authenticated-user-email", "s3cret", "", "s3cret"),
        ("forwarded", "for=s3cret", "", "for=s3cret"),
    ],
)
def test_whatever_may_be_a_credential_is_hashed(
    emulator: Emulator, parent: str, transport: str, name: str, value: str, scheme: str, hidden: str
) -> None:
    """Credentials are hashed over both transports. Only a known scheme stays readable."""
    if transport == "grpc":
        with grpc.insecure_channel(str(emulator.grpc)) as channel:
            channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels")(
                BY_NAME["ListModels"].request(parent=parent).SerializeToString(), metadata=((name, value),)
            )
    else:
        # A header that ends in a blank does not leave a client of HTTP.
        headers = {name: value.strip()}
        assert requests.get(f"{emulator.rest}/v1/{parent}/models", headers=headers, timeout=10).ok

    (came,) = emulator.requests()

    assert came.metadata[name] == f"{scheme}sha256:{hashlib.sha256(hidden.encode()).hexdigest()}"
    assert "s3cret" not in requests.get(f"{emulator.rest}/emulator/requests", timeout=10).text


@TRANSPORTS
@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("x-goog-api-client", "gl-python/3.11 gapic/1.0", "gl-python/3.11 gapic/1.0"),
        ("x-goog-request-params", "parent=projects%2Fp&x=y", "parent=projects%2Fp&x=y"),
        ("x-goog-fieldmask", "models.name", "models.name"),
        ("x-goog-user-project", "acme", "acme"),
        ("x-goog-api-client", "tool (+https://x/?token=s3cret)", "tool (+https://x/?{token=s3cret})"),
        ("x-goog-api-client", "https://me:s3cret@x/y?a=b#c", "https://{me:s3cret}@x/y?{a=b}#c"),
        ("accept-language", "?a=s3cret&b=s3cret c?d", "?{a=s3cret&b=s3cret} c?{d}"),
    ],
)
def test_what_is_harmless_is_shown(
    emulator: Emulator, parent: str, transport: str, name: str, value: str, shown: str
) -> None:
    """Addresses stay readable, except for their users and queries."""
    if transport == "grpc":
        with grpc.insecure_channel(str(emulator.grpc)) as channel:
            channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels")(
                BY_NAME["ListModels"].request(parent=parent).SerializeToString(), metadata=((name, value),)
            )
    else:
        assert requests.get(f"{emulator.rest}/v1/{parent}/models", headers={name: value}, timeout=10).ok

    (came,) = emulator.requests()

    def hashed(match: re.Match[str]) -> str:
        return f"sha256:{hashlib.sha256(match[1].encode()).hexdigest()}"

    assert came.metadata[name] == re.sub(r"\{(.*?)\}", hashed, shown)
    assert "s3cret" not in requests.get(f"{emulator.rest}/emulator/requests", timeout=10).text


def test_a_long_failure_arrives_over_grpc(emulator: Emulator, connect: Connect, upload: Upload, parent: str) -> None:
    """The error keeps its code. A message or details that don't fit into trailers are truncated."""
    client = connect(emulator)
    for name in ("a" * 20_000, "é" * 20_000):
        with pytest.raises(exceptions.NotFound, match="The Operation does not exist: ") as missing:
            client.get_operation(request={"name": f"{parent}/operations/{name}"})
        assert missing.value.message.endswith("...")
    evaluation = client.import_model_evaluation(
        parent=upload(client), model_evaluation={"metrics_schema_uri": "gs://x"}
    )

    slices = [{"metrics": float("nan")}] * 200
    with pytest.raises(exceptions.InvalidArgument, match="List of found errors") as caught:
        client.batch_import_model_evaluation_slices(parent=evaluation.name, model_evaluation_slices=slices)

    (detail,) = caught.value.details
    assert 0 < len(detail.field_violations) < 200
    assert detail.field_violations[0].field == "model_evaluation_slices[0]"


@TRANSPORTS
@pytest.mark.parametrize("path", ["display_name", "displayName"])
def test_a_mask_is_shown_whatever_its_case(emulator: Emulator, parent: str, transport: str, path: str) -> None:
    """Masks have either case, but are shown in one. The recorded message stays as it was received."""
    if transport == "grpc":
        with grpc.insecure_channel(str(emulator.grpc)) as channel:
            request = BY_NAME["ListModels"].request(parent=parent, read_mask=field_mask_pb2.FieldMask(paths=[path]))
            channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels")(request.SerializeToString())
    else:
        assert requests.get(f"{emulator.rest}/v1/{parent}/models?readMask={path}", timeout=10).ok

    (came,) = requests.get(f"{emulator.rest}/emulator/requests", timeout=10).json()["requests"]

    assert came["message"] == {"parent": parent, "readMask": "displayName"}
    assert list(emulator.requests()[0].message.read_mask.paths) == [path]


def test_requests_are_remembered_up_to_so_many_bytes(emulator: Emulator, connect: Connect, parent: str) -> None:
    """The latest requests are remembered, even a single one that's longer than the limit."""
    client = connect(emulator)
    large = "x" * (1024 * 1024)
    for name in ("first", *["more"] * 70, "last"):
        model = {"display_name": name, "description": large}
        with pytest.raises(exceptions.InvalidArgument):
            client.upload_model(request={"parent": parent, "model": model})

    names = [request.message.model.display_name for request in emulator.requests()]
    assert 40 < len(names) < 65
    assert "first" not in names
    assert names[-1] == "last"


def test_what_is_remembered_of_metadata_counts(emulator: Emulator, parent: str) -> None:
    """Metadata counts towards the limit, because a request may consist of little else."""
    with requests.Session() as session:
        session.headers.update(
            {f"x-goog-{name}": "x" * 65_000 for name in ("api-client", "api-version", "user-project")}
        )
        session.headers.update(
            dict.fromkeys(("accept-language", "accept-charset", "cache-control", "te"), "x" * 65_000)
        )
        for _ in range(160):
            assert session.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).ok

    remembered = emulator.requests()
    assert 140 < len(remembered) < 150
    assert sum(len(value) for request in remembered for value in request.metadata.values()) < 64 * 1024 * 1024


def test_only_so_many_messages_are_shown(emulator: Emulator, connect: Connect, parent: str) -> None:
    """Over HTTP the latest messages are shown, up to a size that takes seconds; every request is listed."""
    client = connect(emulator)
    for size in (1_000, 900_000, 900_000, 3_000_000, 900_000):
        with pytest.raises(exceptions.InvalidArgument):
            client.upload_model(parent=parent, model=Model(description="x" * size))

    shown = requests.get(f"{emulator.rest}/emulator/requests", timeout=30).json()["requests"]
    assert [request["rpc"] for request in shown] == ["UploadModel"] * 5
    lengths = [request["message"] and len(request["message"]["model"]["description"]) for request in shown]
    assert lengths == [1_000, None, 900_000, None, 900_000]
    assert MOST_SHOWN_BYTES == 2 * 1024 * 1024
    assert "the messages of the latest 2 MiB" in FAULTS
    assert len(emulator.requests()[3].message.model.description) == 3_000_000


def test_a_request_that_has_no_json_is_shown_all_the_same(emulator: Emulator, connect: Connect, parent: str) -> None:
    """A request without a JSON form is shown without its message."""
    with pytest.raises(exceptions.InvalidArgument):
        connect(emulator).import_model_evaluation(
            parent=f"{parent}/models/m", model_evaluation={"metrics": float("nan")}
        )

    (came,) = requests.get(f"{emulator.rest}/emulator/requests", timeout=10).json()["requests"]

    assert came["message"] is None
