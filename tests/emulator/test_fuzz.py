"""No input makes the emulator fail with an internal error, hang or crash.

Requests consist of random messages of each RPC's type, of JSON, paths, parameters and headers that are almost valid,
and of random bytes. Any answer is right except 500, INTERNAL and the like, as long as the next request works too.
"""

from __future__ import annotations

import errno
import json
import socket
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.types import model_service
from google.longrunning import operations_pb2
from google.protobuf import descriptor, message_factory
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vertex_registry.emulator import Emulator
from vertex_registry.emulator._names import project_number
from vertex_registry.emulator._query import parse_query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

pytestmark = pytest.mark.unmeasured  # measuring coverage is slow, and other tests reach each line

BROKEN: Final = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
CONNECTION_CLOSED: Final = {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN}
#: Seconds after which a call counts as hanging.
TIMEOUT: Final = 20.0

SERVICE: Final = "/google.cloud.aiplatform.v1.ModelService"
REQUESTS: Final = {
    f"{SERVICE}/{name.removesuffix('Request')}": getattr(model_service, name).pb().DESCRIPTOR
    for name in model_service.__all__
    if name.endswith("Request")
} | {
    f"/google.longrunning.Operations/{name}Operation{end}": request.DESCRIPTOR
    for name, end, request in (
        ("Get", "", operations_pb2.GetOperationRequest),
        ("List", "s", operations_pb2.ListOperationsRequest),
        ("Cancel", "", operations_pb2.CancelOperationRequest),
        ("Delete", "", operations_pb2.DeleteOperationRequest),
        ("Wait", "", operations_pb2.WaitOperationRequest),
    )
}

many: Final = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def upload(channel: grpc.Channel) -> None:
    """Create the model ``m``."""
    request = aiplatform_v1.UploadModelRequest(
        parent=PARENT,
        model_id="m",
        model={"display_name": "m", "container_spec": {"image_uri": "eu.gcr.io/acme/serve"}},
    )
    ask(channel, f"{SERVICE}/UploadModel", aiplatform_v1.UploadModelRequest.serialize(request))


@pytest.fixture(name="emulator", scope="module")
def _emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        with grpc.insecure_channel(str(emulator.grpc)) as channel:
            upload(channel)
        yield emulator


@pytest.fixture(name="channel", scope="module")
def _channel(emulator: Emulator) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(emulator.grpc)) as channel:
        yield channel


def check_alive(emulator: Emulator) -> None:
    """Check that the emulator answers over both transports."""
    with urllib.request.urlopen(f"{emulator.rest}/v1/{PARENT}/models", timeout=TIMEOUT) as answer:  # noqa: S310 - http
        assert isinstance(json.load(answer), dict)
    with grpc.insecure_channel(str(emulator.grpc)) as channel:
        check_grpc(channel)


def check_grpc(channel: grpc.Channel) -> None:
    """Check that a valid request is answered."""
    send: Any = channel.unary_unary(f"{SERVICE}/ListModels", request_serializer=None, response_deserializer=None)
    send(aiplatform_v1.ListModelsRequest.serialize(aiplatform_v1.ListModelsRequest(parent=PARENT)), timeout=TIMEOUT)


# --- messages ----------------------------------------------------------------

PARENT: Final = "projects/acme/locations/us-central1"
_words: Final = [
    "",
    "m",
    "default",
    "-",
    "*",
    "1",
    "2",
    "99999999999999999999",
    "alpha",
    "-alpha",
    "UPPER",
    "a b",
    "é",
    "\0",
    "gs://b/c",
    "gs://",
    "labels.a=b",
    "labels:a",
    "create_time desc",
    "display_name",
    "displayName",
    "name",
    "labels.x",
    "projects",
    PARENT,
    f"{PARENT}/models/m",
    f"{PARENT}/models/m@1",
    f"{PARENT}/models/m@alpha",
    f"{PARENT}/models/m@-",
    f"{PARENT}/models/m@1@2",
    f"{PARENT}/models/",
    f"{PARENT}/models/m/evaluations/1",
    f"{PARENT}/operations/1",
    f"{PARENT}/models/m/operations/1",
    "projects//locations/x",
    "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest",
]
_texts: Final = st.sampled_from(_words) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)

_F: Final = descriptor.FieldDescriptor
_SCALARS: Final[dict[int, st.SearchStrategy[Any]]] = {
    _F.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 2),
    _F.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    _F.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    _F.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    _F.CPPTYPE_DOUBLE: st.floats(),
    _F.CPPTYPE_FLOAT: st.floats(width=32),
    _F.CPPTYPE_BOOL: st.booleans(),
    _F.CPPTYPE_ENUM: st.integers(-1, 9),
}


@st.composite
def messages(draw: st.DrawFn, of: descriptor.Descriptor, depth: int = 3) -> Message:
    """Return a message of this type, with random values in some fields."""
    message: Message = message_factory.GetMessageClass(of)()
    fields = [field for field in of.fields if depth or field.message_type is None]
    # Fields for names, masks and pages come up often, the many others now and then.
    for field in (
        draw(st.lists(st.sampled_from(fields), max_size=6, unique_by=lambda field: field.name)) if fields else ()
    ):
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            value = kind.fields_by_name["value"]
            keys = draw(st.lists(_texts, max_size=3, unique=True))
            target = getattr(message, field.name)
            for key in keys:
                if value.message_type is None:
                    target[key] = draw(_texts)
                else:
                    target[key].CopyFrom(draw(messages(value.message_type, depth - 1)))
            continue
        if kind is not None:
            one: st.SearchStrategy[Any] = messages(kind, depth - 1)
        elif field.cpp_type == _F.CPPTYPE_STRING:
            one = st.binary(max_size=8) if field.type == _F.TYPE_BYTES else _texts
        else:
            one = _SCALARS[field.cpp_type]
        if not field.has_presence and (kind is not None or field.default_value == []):
            getattr(message, field.name).extend(draw(st.lists(one, max_size=3)))
        elif kind is not None:
            getattr(message, field.name).CopyFrom(draw(one))
        else:
            setattr(message, field.name, draw(one))
    return message


def ask(channel: grpc.Channel, method: str, message: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> None:
    """Send bytes to a method, and accept every response except an internal error."""
    send: Any = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
    try:
        send(message, timeout=TIMEOUT, metadata=metadata)
    except grpc.RpcError as error:
        assert error.code() not in BROKEN, f"{method}: {error.code()}: {error.details()}"


@given(st.data())
@many
def test_any_message_is_answered(channel: grpc.Channel, data: st.DataObject) -> None:
    """Every RPC answers or refuses a message of the right type, whatever its fields contain."""
    for method, of in REQUESTS.items():
        ask(channel, method, data.draw(messages(of)).SerializeToString())


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@given(data=st.data(), message=st.binary(max_size=64) | st.just(b"\x0a" * 40_000))
@settings(many, max_examples=25)
def test_bytes_that_are_not_a_message_are_refused(
    channel: grpc.Channel, version: str, data: st.DataObject, message: bytes
) -> None:
    """Bytes that can't be parsed aren't an internal error."""
    method = data.draw(st.sampled_from(sorted(REQUESTS)))
    ask(channel, method.replace(".v1.", f".{version}."), message)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_unknown_fields_are_not_stored(emulator: Emulator, channel: grpc.Channel, version: str) -> None:
    """Fields that the other API version can't parse don't break its lists."""
    # v1 has no field 12. In v1beta1 it's a message, but these bytes aren't.
    evaluation = b"\x62\x03\xff\xff\xff"
    name = f"{PARENT}/models/m".encode()
    message = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(evaluation)]) + evaluation
    upload(channel)  # an earlier test may have deleted it
    ask(channel, f"{SERVICE}/ImportModelEvaluation".replace(".v1.", f".{version}."), message)

    for api in ("v1", "v1beta1"):
        address = f"{emulator.rest}/{api}/{PARENT}/models/m/evaluations"
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - http
            assert "modelEvaluations" in json.load(answer) or version == "v1beta1"


@given(method=st.from_regex(r"/[a-zA-Z0-9_./ -]{0,40}", fullmatch=True), message=st.binary(max_size=16))
@example("/", b"")
@example(f"{SERVICE}/Nothing", b"")
@example("/google.cloud.aiplatform.v1.EndpointService/ListEndpoints", b"")
@settings(many, max_examples=25)
def test_an_unknown_method_is_unimplemented(channel: grpc.Channel, method: str, message: bytes) -> None:
    """An unknown method is an error, but not an internal one."""
    ask(channel, method, message)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["x-goog-request-params", "authorization", "x-goog-api-client", "x-other"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        ),
        max_size=4,
    ).map(tuple)
)
@settings(many, max_examples=25)
def test_any_metadata_is_accepted(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
    """Metadata doesn't affect a request."""
    request = aiplatform_v1.GetModelRequest(name=f"{PARENT}/models/m")
    ask(channel, f"{SERVICE}/GetModel", aiplatform_v1.GetModelRequest.serialize(request), metadata)


@pytest.mark.parametrize("position", [["x"], [10**30], [None], [], [1, 2, 3], 1, {"a": 1}, [[1]], ["\ud800"]])
@pytest.mark.parametrize(
    ("rpc", "scope", "order"),
    [("ListModels", "", ""), ("ListModels", "", "display_name"), ("ListModelVersions", "/models/m", "update_time")],
)
def test_a_forged_page_token_is_refused(channel: grpc.Channel, rpc: str, scope: str, order: str, position: Any) -> None:
    """A token with a valid checksum and the right query, but an impossible position, is refused."""
    field = "name" if scope else "parent"
    name = f"projects/{project_number('acme')}/locations/us-central1{scope}"
    token = parse_query(rpc, name, order_by=order).token(position)
    request = getattr(model_service, f"{rpc}Request").pb()(**{field: name}, order_by=order, page_token=token)
    send: Any = channel.unary_unary(f"{SERVICE}/{rpc}", request_serializer=None, response_deserializer=None)

    with pytest.raises(grpc.RpcError) as caught:
        send(request.SerializeToString(), timeout=TIMEOUT)

    refused: Any = caught.value
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "isn't a page token of this server" in refused.details()


# --- JSON over HTTP ----------------------------------------------------------

_names: Final = st.sampled_from(
    [
        "model",
        "displayName",
        "display_name",
        "labels",
        "containerSpec",
        "imageUri",
        "image_uri",
        "parentModel",
        "modelId",
        "versionAliases",
        "ports",
        "containerPort",
        "name",
        "@type",
        "",
        "nonsense",
        "metrics",
        "modelEvaluation",
        "updateMask",
        "sharedMemorySizeMb",
        "deploymentTimeout",
        "createTime",
        "outputConfig",
        "faults",
        "rpc",
        "code",
        "times",
        "etag",
    ]
)
# JSON can express numbers that don't fit into a double, and half of a surrogate pair.
_invalid_texts: Final = st.sampled_from(["\ud800", "a\udfff", "1e400", "-Infinity", "9" * 401])
_json_texts: Final = _texts | _invalid_texts
_invalid_scalars: Final = _invalid_texts | st.sampled_from(
    [10**401, -(10**401), 10**30, 1e300, float("inf"), float("-inf")]
)
_scalars: Final = st.none() | st.booleans() | st.integers() | st.floats() | _texts | _invalid_scalars
_json: Final = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names | _invalid_texts, inner, max_size=4),
    max_leaves=12,
)


def _to_json(value: Any) -> bytes:
    # JSON has no infinity, only numbers that are too large.
    return json.dumps(value).replace("Infinity", "1e400").encode()


@st.composite
def _almost_valid(draw: st.DrawFn, of: descriptor.Descriptor) -> dict[str, Any]:
    """Return an object with fields of a message, any of which may have a value of the wrong type."""
    fields = draw(st.lists(st.sampled_from(list(of.fields)), max_size=4, unique_by=lambda field: field.name))
    return {draw(st.sampled_from([field.name, field.json_name])): draw(_almost_valid_field(field)) for field in fields}


def _almost_valid_field(field: descriptor.FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return (
            st.dictionaries(_json_texts, _almost_valid_field(kind.fields_by_name["value"]), max_size=2)
            | _invalid_scalars
        )
    # Protobuf's own messages have their own JSON forms: most are scalars, the others are any JSON.
    one = _scalars if kind is None else _json if kind.file.package == "google.protobuf" else _almost_valid(kind)
    return (st.lists(one, max_size=2) if field.default_value == [] else one) | _invalid_scalars


# A body is some bytes and how often they're repeated, so a failing example is short.
_bodies: Final = st.tuples(_json.map(_to_json) | st.binary(max_size=30), st.just(1)) | st.sampled_from(
    [
        (b"[", 100_000),
        (b'{"a":', 50_000),
        (b'{"model":{"displayName":"\\ud800"}}', 1),
        (b'{"a":1,"a":2}', 1),
        (b"1e999", 1),
        (b"9" * 5000, 1),
    ]
)
_paths: Final = st.lists(
    st.sampled_from(
        [
            "v1",
            "v1beta1",
            "ui",
            "v2",
            "projects",
            "acme",
            "0",
            "locations",
            "us-central1",
            "models",
            "models:upload",
            "m",
            "m@1",
            "m%401",
            "m%40alpha",
            "m@1:listVersions",
            "m:mergeVersionAliases",
            "m@1:deleteVersion",
            "m:export",
            "models:copy",
            "m:listCheckpoints",
            "m:updateExplanationDataset",
            "evaluations",
            "evaluations:import",
            "1",
            "slices",
            "slices:batchImport",
            "operations",
            "1:cancel",
            "1:wait",
            "m:getIamPolicy",
            "",
            ".",
            "..",
            "%2F",
            "%00",
            "%",
            "%zz",
            "%ff",
            "emulator",
            "faults",
            "requests",
            "health",
            "reset",
            "token",
            "locations:x",
            ":",
            "*",
        ]
    ),
    max_size=9,
).map(lambda parts: "/" + "/".join(parts))
_real_paths: Final = st.sampled_from(
    [
        f"/{version}/{PARENT}/{rest}"
        for version in ("v1", "v1beta1", "ui")
        for rest in (
            "models",
            "models:upload",
            "models:copy",
            "models/m",
            "models/m@1",
            "models/m%401",
            "models/m:listVersions",
            "models/m@1:mergeVersionAliases",
            "models/m@2:deleteVersion",
            "models/m:export",
            "models/m:listCheckpoints",
            "models/m:updateExplanationDataset",
            "models/m/evaluations",
            "models/m/evaluations:import",
            "models/m/evaluations/1/slices:batchImport",
            "models/m/evaluations/1/slices/1:batchImport",
            "models/m/operations",
            "operations/1",
            "models/m/operations/1:wait",
            "operations/1:cancel",
        )
    ]
    + ["/emulator/faults", "/emulator/requests", "/emulator/health", "/token"]
)
_queries: Final = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "filter",
                "pageSize",
                "page_size",
                "pageToken",
                "orderBy",
                "readMask",
                "updateMask",
                "$alt",
                "alt",
                "key",
                "x",
                "model.labels",
                "name",
                "readMask.paths",
                "prettyPrint",
                "filter.x",
            ]
        ),
        _texts | st.just("json;enum-encoding=int"),
    ),
    max_size=3,
).map(urllib.parse.urlencode)


def exchange(address: tuple[str, int], sent: bytes, until: Callable[[bytes], bool] = lambda _: True) -> bytes:
    """Send bytes, wait for a response, close the sending side, and read until the server closes the connection."""
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while not until(received) and (some := connection.recv(65536)):
                received += some
            connection.shutdown(socket.SHUT_WR)
            while some := connection.recv(65536):
                received += some
        except OSError as error:
            # If the server closes the connection while the client sends, the response may be lost.
            assert error.errno in CONNECTION_CLOSED, f"it hangs: {error!r}"
        return received


def ask_rest(emulator: Emulator, sent: bytes) -> bytes:
    """Send bytes to the REST port, and return the response. The sending side stays open until the head has arrived."""
    return exchange(address_of(emulator), sent, lambda received: b"\r\n\r\n" in received)


def address_of(emulator: Emulator) -> tuple[str, int]:
    host, _, port = str(emulator.rest).removeprefix("http://").rpartition(":")
    return host, int(port)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


@given(
    method=st.sampled_from(
        ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "X"]
    ),
    path=_paths | _real_paths | _real_paths,
    query=_queries,
    headers=st.dictionaries(
        st.sampled_from(
            ["Content-Type", "Authorization", "X-HTTP-Method-Override", "Expect", "Accept-Encoding", "Range"]
        ),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20),
        max_size=3,
    ),
    body=_bodies,
)
@settings(many, max_examples=300)
def test_any_request_is_answered(
    emulator: Emulator, method: str, path: str, query: str, headers: dict[str, str], body: tuple[bytes, int]
) -> None:
    """A request with anything in its path, parameters, headers and body gets a response that isn't 5xx."""
    host, port = address_of(emulator)
    content = body[0] * body[1]
    head = [
        f"{method} {path}?{query} HTTP/1.1",
        f"Host: {host}:{port}",
        f"Content-Length: {len(content)}",
        "Connection: close",
    ]
    head += [f"{name}: {value}" for name, value in headers.items()]
    answer = ask_rest(emulator, "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + content)

    # If a request is refused while it sends a long body, the connection may be reset before the response arrives.
    assert 200 <= status_of(answer) < 500 or (not answer and len(content) > 10_000), answer[:500]


@given(body=_bodies, path=_real_paths)
@settings(many, max_examples=200)
def test_any_body_is_answered(emulator: Emulator, path: str, body: tuple[bytes, int]) -> None:
    """A POST to a real path is accepted, or refused with Google's error body."""
    host, port = address_of(emulator)
    content = body[0] * body[1]
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    answer = ask_rest(emulator, head.encode() + content)

    status = status_of(answer)
    assert 200 <= status < 500, answer[:500]
    if status >= 400:
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == status
        assert error["message"]


@pytest.mark.parametrize(
    ("method", "path", "of"),
    [
        ("POST", f"/v1/{PARENT}/models:upload", aiplatform_v1.UploadModelRequest),
        ("PATCH", f"/v1/{PARENT}/models/m?updateMask=metadata,labels,description", aiplatform_v1.Model),
        ("PATCH", f"/v1beta1/{PARENT}/models/m?updateMask=explanationSpec", aiplatform_v1.Model),
        ("POST", f"/v1beta1/{PARENT}/models/m/evaluations:import", aiplatform_v1.ImportModelEvaluationRequest),
    ],
)
@given(data=st.data())
@settings(many, max_examples=100)
def test_any_value_in_a_field_is_answered(
    emulator: Emulator, method: str, path: str, of: Any, data: st.DataObject
) -> None:
    """A body with valid field names is accepted or refused, whatever its values."""
    host, port = address_of(emulator)
    content = _to_json(data.draw(_almost_valid(of.pb().DESCRIPTOR)))
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(content)}\r\n"
    answer = ask_rest(emulator, f"{head}Connection: close\r\n\r\n".encode() + content)

    assert 200 <= status_of(answer) < 500, answer[:500]


# A fault that's valid or almost valid, sometimes with invalid values.
_valid_faults: Final[st.SearchStrategy[dict[str, Any]]] = st.fixed_dictionaries(
    {
        "rpc": st.sampled_from(["GetModel", "UploadModel", "UpdateModel"]),
        "code": st.sampled_from(["UNAVAILABLE", "OK"]),
    },
    optional={
        "times": st.integers(1, 3),
        "when": st.sampled_from(["before", "after", "operation"]),
        "delay": st.sampled_from([0, 0.001]),
        "drop": st.booleans(),
        "retry_after": st.floats(0, 10),
        "stale_etag": st.booleans(),
        "message": _texts,
    },
)
_invalid_faults: Final[st.SearchStrategy[dict[str, Any]]] = st.dictionaries(
    st.sampled_from(["rpc", "code", "times", "when", "delay", "drop", "retry_after", "stale_etag", "message", "x"]),
    _texts | st.sampled_from([None, True, -1, 0, 1, 2.5, 1e300, 10**30, [], {}]),
    max_size=2,
)
_faults: Final = _valid_faults | st.builds(lambda valid, invalid: {**valid, **invalid}, _valid_faults, _invalid_faults)


@given(planned=_faults)
@settings(many, max_examples=200)
def test_any_fault_is_planned_or_refused(emulator: Emulator, planned: dict[str, Any]) -> None:
    """A valid fault is planned and listed. An invalid one is refused with a message, and isn't planned."""
    host, port = address_of(emulator)

    def ask(verb: str, body: str) -> tuple[int, Any]:
        content = body.encode()
        head = f"{verb} /emulator/faults HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(content)}\r\n"
        answer = ask_rest(emulator, f"{head}Connection: close\r\n\r\n".encode() + content)
        return status_of(answer), json.loads(answer.partition(b"\r\n\r\n")[2])

    emulator.forget_faults()
    status, content = ask("POST", json.dumps(planned))
    listed = ask("GET", "")[1]["faults"]
    emulator.forget_faults()

    if status == 200:
        assert content["faults"] == listed
        assert [{name: fault[name] for name in planned} for fault in listed] == [planned]
    else:
        assert status == 400
        assert content["error"]["message"]
        assert listed == []


# --- bytes -------------------------------------------------------------------

_noise: Final = st.binary(max_size=200) | st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nshort",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nx",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 1000,
        b"",
    ]
)


@given(_noise)
@many
def test_any_bytes_on_the_rest_port(emulator: Emulator, noise: bytes) -> None:
    """The server answers any bytes or closes the connection. It never answers with 500."""
    last = f"\r\n\r\nGET / HTTP/1.1\r\nHost: {address_of(emulator)[0]}\r\nConnection: close\r\n\r\n".encode()

    assert status_of(exchange(address_of(emulator), noise)) not in range(500, 505)
    assert 400 <= status_of(ask_rest(emulator, noise + last)) < 500
    check_alive(emulator)


# The parts of HTTP/2 that these tests need to send invalid frames.
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 1, 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes, length_error: int = 0) -> bytes:
    """Return a frame. Its length field is wrong by `length_error`."""
    return (len(payload) + length_error).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def frames_of(received: bytes) -> Iterator[tuple[int, int, int]]:
    """Return the kind, the flags and the stream of each frame."""
    while len(received) >= 9:
        yield received[3], received[4], int.from_bytes(received[5:9])
        received = received[9 + int.from_bytes(received[:3]) :]


def headers(**changes: str) -> bytes:
    """Return the headers of a request, with some of them changed or left out."""
    valid = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"{SERVICE}/ListModels",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    fields = [(name.encode(), value.encode()) for name, value in (valid | changes).items() if value]
    return b"".join(b"\0" + len(name).to_bytes(1) + name + len(value).to_bytes(1) + value for name, value in fields)


def prefixed(message: bytes, compressed: int = 0, length_error: int = 0) -> bytes:
    """Return a message with gRPC's prefix, whose compression and length may be wrong."""
    return bytes([compressed]) + max(len(message) + length_error, 0).to_bytes(4) + message


_LIST: Final = aiplatform_v1.ListModelsRequest.serialize(aiplatform_v1.ListModelsRequest(parent=PARENT))
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0, b"")
# The stream of the last request, which needs the highest number.
_LAST: Final = 99
_VALID: Final = frame(_HEADERS, _END_HEADERS, _LAST, headers()) + frame(_DATA, _END_STREAM, _LAST, prefixed(_LIST))

_heads: Final = st.sampled_from(
    [{}] * 10
    + [
        {":path": "/x/y"},
        {":path": f"{SERVICE}/Nothing"},
        {":path": ""},
        {":path": "x"},
        {":method": "GET"},
        {"te": ""},
        {"content-type": "text/html"},
        {"grpc-encoding": "gzip"},
        {"grpc-encoding": "nonsense"},
        {"grpc-timeout": "1n"},
        {"grpc-timeout": "soon"},
        {"x-bin": "***"},
        {"UPPER": "x"},
        {"": "x"},
    ]
).map(lambda changes: headers(**changes))
_messages: Final = st.builds(
    lambda payload, cut: payload[:cut],
    st.builds(
        prefixed,
        st.sampled_from([_LIST, _LIST[:-3], b"\xff" * 9, b""]),
        st.sampled_from([0, 0, 0, 1, 255]),
        st.sampled_from([0, 0, 0, 1, 5, -1, -5, 2**25, 2**31]),
    ),
    st.sampled_from([None, None, None, 20, 5, 3]),
)
_others: Final = st.sampled_from(
    [
        frame(_RESET, 0, 1, b"\0"),
        frame(_SETTINGS, 0, 0, b"\0\5\0\0\0\0"),
        frame(_SETTINGS, 0, 0, b"\0"),
        frame(_PING, 0, 0, bytes(8)),
        frame(_PING, 0, 1, b""),
        frame(_GO_AWAY, 0, 0, bytes(8)),
        frame(_WINDOW, 0, 0, bytes(4)),
        frame(_WINDOW, 0, 1, b"\x7f\xff\xff\xff"),
        frame(_CONTINUATION, _END_HEADERS, 1, headers()),
        frame(_DATA, 0, 0, b"x"),
        frame(_HEADERS, _END_HEADERS, 0, headers()),
        frame(_HEADERS, _END_HEADERS, 2, headers()),
        frame(_HEADERS, _END_HEADERS, 1, b"\xff" * 20),
        frame(0x42, 0xFF, 1, b"x"),
    ]
)


def _calls(stream: int) -> st.SearchStrategy[bytes]:
    """Return the frames of a request: headers, usually a message, and sometimes a reset or other frames."""
    flags = [_END_HEADERS] * 8 + [_END_HEADERS | _END_STREAM, 0, _END_HEADERS | _PADDED, _END_HEADERS | _PRIORITY]
    data = st.builds(
        frame, st.just(_DATA), st.sampled_from([_END_STREAM, _END_STREAM, 0, _PADDED]), st.just(stream), _messages
    )
    reset = st.builds(frame, st.just(_RESET), st.just(0), st.just(stream), st.binary(min_size=4, max_size=4))
    nothing = st.just(b"")
    return st.tuples(
        st.builds(frame, st.just(_HEADERS), st.sampled_from(flags), st.just(stream), _heads),
        data | data | nothing,
        nothing | data | reset | _others,
    ).map(b"".join)


_frames: Final = st.tuples(*(st.just(b"") | _calls(stream) for stream in (1, 3, 5))).map(b"".join)
# Frames that end too early or have a wrong length.
_broken: Final = st.builds(
    lambda frames, error, cut: _HELLO + frames + frame(_HEADERS, _END_HEADERS, 7, headers(), error) + _VALID[:cut],
    _frames,
    st.sampled_from([0, 1, 7, -1, -7, 10_000]),
    st.integers(0, len(_VALID) - 1),
)


def is_answered(received: bytes) -> bool:
    """Return whether the last request's response is complete."""
    return any(stream == _LAST and flags & _END_STREAM for _, flags, stream in frames_of(received))


@given(_noise | _broken)
@many
def test_any_bytes_on_the_grpc_port(emulator: Emulator, channel: grpc.Channel, noise: bytes) -> None:
    """After invalid bytes, the server closes the connection and still serves others."""
    host, _, port = str(emulator.grpc).rpartition(":")
    assert b"Exception" not in exchange((host, int(port)), noise)
    check_grpc(channel)


@given(_frames)
@settings(many, max_examples=25)
@example(b"")
def test_invalid_frames_break_no_other_request(emulator: Emulator, channel: grpc.Channel, frames: bytes) -> None:
    """A valid request on the same connection is answered, or the connection is closed. Others are still served."""
    host, _, port = str(emulator.grpc).rpartition(":")
    received = exchange((host, int(port)), _HELLO + frames + _VALID, is_answered)

    assert b"Exception" not in received  # gRPC says so if the emulator's method raises
    if is_answered(received):
        assert any(kind == _DATA and stream == _LAST for kind, _, stream in frames_of(received)), received
    else:
        assert frames, "a valid request without other frames must be answered"
    check_grpc(channel)


def test_the_emulator_still_works_after_all_that(emulator: Emulator) -> None:
    """Both transports still answer while each has a connection with half a request."""
    host, _, port = str(emulator.grpc).rpartition(":")
    with (
        socket.create_connection(address_of(emulator)) as rest,
        socket.create_connection((host, int(port))) as rpc,
    ):
        rest.sendall(b"POST /v1/x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        rpc.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x04")

        check_alive(emulator)
