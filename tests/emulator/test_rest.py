"""HTTP and JSON like those of Google's front end: raw requests and their responses."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import struct
import urllib.parse
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import requests
import trustme
from google.cloud.aiplatform_v1 import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport

from vertex_registry.emulator._bounds import LONGEST_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vertex_registry.emulator import Emulator

    Start = Callable[..., Emulator]

MODEL = {
    "displayName": "churn",
    "artifactUri": "gs://bucket/churn",
    "containerSpec": {"imageUri": "example.com/serve:1", "sharedMemorySizeMb": "128", "deploymentTimeout": "60s"},
}


def upload(emulator: Emulator, parent: str, api: str = "v1", **request: Any) -> Any:
    """POST an upload, and return the operation."""
    answer = requests.post(
        f"{emulator.rest}/{api}/{parent}/models:upload", json={"model": MODEL, **request}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def error(answer: requests.Response) -> dict[str, Any]:
    """Return the error of a response, and check that its code is the HTTP status."""
    content: dict[str, Any] = answer.json()["error"]
    assert content["code"] == answer.status_code
    return content


def exchange(emulator: Emulator | str, sent: bytes, *, leave: bool = False) -> bytes:
    """Send bytes, and return everything that comes back until the server closes the connection.

    With ``leave``, the client closes its side of the connection after sending.
    """
    address = emulator if isinstance(emulator, str) else str(emulator.rest).removeprefix("http://")
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(sent)
        if leave:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def status_of(received: bytes) -> int:
    """Return the status of the first response."""
    version, status, _ = received.split(b" ", 2)
    assert version in {b"HTTP/1.0", b"HTTP/1.1"}
    return int(status)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_ignored(
    emulator: Emulator, parent: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The emulator keeps running and logs nothing."""
    host, _, port = str(emulator.rest).removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /v1/{parent}/models:upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(9) == b"HTTP/1.1 "  # 100 Continue: the server waits for the body
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset

    assert requests.get(f"{emulator.rest}/emulator/health", timeout=10).ok
    emulator.close()  # the connection's thread has ended
    assert caplog.messages == []


def test_spaces_around_a_header_are_ignored(emulator: Emulator, parent: str) -> None:
    """Spaces and tabs around the value of a Host or a Content-Length are ignored."""
    host = str(emulator.rest).removeprefix("http://")
    head = f"POST /v1/{parent}/models:upload HTTP/1.1\r\nHost: \t{host} \r\nContent-Length:  2\t\r\n"
    head += "Connection: close\r\n\r\n{}"

    assert b"List of found errors" in exchange(emulator, head.encode())


def nested(depth: int, kind: str) -> object:
    """Return a value that's nested this deep in lists, in objects, or in both alternately."""
    value: object = 1
    for level in range(depth):
        value = {"a": value} if kind == "objects" or (kind == "both" and level % 2) else [value]
    return value


@pytest.mark.parametrize("polls", [0, 2])
@pytest.mark.parametrize("kind", ["lists", "objects", "both"])
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_json_that_is_nested_too_deeply_is_refused(start: Start, parent: str, kind: str, polls: int) -> None:
    """Whatever is accepted can be read again: directly, in lists and among past requests."""
    emulator = start(polls_until_done=polls)
    upload(emulator, parent, modelId="m", model=MODEL | {"explanationSpec": {"parameters": {"examples": {}}}})
    at = f"{emulator.rest}/v1/{parent}/models"
    model = {"displayName": "m", "containerSpec": {"imageUri": "gcr.io/acme/serve"}, "metadataSchemaUri": "gs://bkt/s"}
    while not requests.get(f"{at}/m", timeout=10).ok:
        pass  # each request is a poll
    explained = {"parameters": {"xraiAttribution": {"stepCount": 1}}}
    accepted: list[bool] = []
    session = requests.Session()
    for depth in range(29, 52):
        value = nested(depth, kind)
        with_baseline = explained | {"metadata": {"inputs": {"f": {"inputBaselines": [value]}}}}
        for path, body in (
            (":upload", {"model": model | {"metadata": value}}),
            (":upload", {"model": model | {"explanationSpec": with_baseline}}),
            ("/m:updateExplanationDataset", {"examples": {"nearestNeighborSearchConfig": value}}),
            ("/m/evaluations:import", {"modelEvaluation": {"metrics": value}}),
        ):
            answer = session.post(f"{at}{path}", json=body, timeout=10)
            assert answer.status_code in {200, 400}, answer.text
            accepted.append(answer.ok)
        for path in ("models?pageSize=1", "models/m", "models/m/evaluations?pageSize=1000", "operations?pageSize=1000"):
            assert requests.get(f"{emulator.rest}/v1/{parent}/{path}", timeout=10).ok
    assert True in accepted
    assert False in accepted
    assert requests.get(f"{at}?pageSize=1000", timeout=10).ok
    assert requests.get(f"{emulator.rest}/emulator/requests", timeout=10).ok
    with grpc.insecure_channel(str(emulator.grpc)) as channel:
        stock = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
        assert len(list(stock.list_models(parent=parent))) > 1


# --- JSON --------------------------------------------------------------------


def test_a_model_is_written_as_canonical_json(emulator: Emulator, parent: str) -> None:
    """JSON has lowerCamelCase names, 64-bit numbers as strings, times in UTC and enum names, but no unset fields."""
    upload(emulator, parent, modelId="mine")

    answer = requests.get(f"{emulator.rest}/v1/{parent}/models/mine", timeout=10)

    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    model = answer.json()
    assert model["containerSpec"]["sharedMemorySizeMb"] == "128"
    assert model["containerSpec"]["deploymentTimeout"] == "60s"
    assert model["createTime"].endswith("Z")
    assert model["modelSourceInfo"] == {"sourceType": "CUSTOM"}
    assert "description" not in model


@pytest.mark.parametrize("query", ["$alt=json;enum-encoding=int", "%24alt=json%3Benum-encoding%3Dint"])
def test_enumerations_are_numbers_on_request(emulator: Emulator, parent: str, query: str) -> None:
    """Google's Python client requests numbers."""
    upload(emulator, parent, modelId="mine")

    answer = requests.get(f"{emulator.rest}/v1/{parent}/models/mine?{query}", timeout=10)

    assert answer.json()["modelSourceInfo"] == {"sourceType": 2}


def test_fields_have_two_spellings(emulator: Emulator, parent: str) -> None:
    """Both spellings work in the body, in the query and in a mask."""
    model = {"display_name": "churn", "container_spec": {"image_uri": "x"}}
    base = f"{emulator.rest}/v1/{parent}/models"
    assert requests.post(f"{base}:upload", json={"model_id": "mine", "model": model}, timeout=10).ok

    for spelling in ("pageSize", "page_size"):
        assert requests.get(f"{base}?{spelling}=1", timeout=10).json()["models"][0]["displayName"] == "churn"
    for mask in ("updateMask=displayName,labels", "update_mask=display_name,labels"):
        answer = requests.patch(f"{base}/mine?{mask}", json={"displayName": "new", "labels": {"a_b": "c"}}, timeout=10)
        assert answer.json()["labels"] == {"a_b": "c"}


@pytest.mark.parametrize("body", [b"[]", b'""', b"false", b"null"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "@1:export"), ("POST", "@1:mergeVersionAliases"), ("PATCH", "?updateMask=description")],
)
def test_a_body_is_an_object(emulator: Emulator, parent: str, method: str, path: str, body: bytes) -> None:
    """Any other body is refused, whether it's the request or one of its fields, and nothing changes."""
    name = upload(emulator, parent, modelId="mine", model={**MODEL, "description": "kept"})["response"]["model"]

    answer = requests.request(method, f"{emulator.rest}/v1/{name}{path}", data=body, timeout=10)

    assert answer.status_code == 400
    assert "Invalid" in error(answer)["message"]
    assert requests.get(f"{emulator.rest}/v1/{name}", timeout=10).json()["description"] == "kept"


@pytest.mark.parametrize("project", ["example.com:acme", "example.com%3Aacme"])
def test_the_project_of_a_domain_has_a_colon(emulator: Emulator, project: str) -> None:
    """The colon works in the path of a collection, a model, a method and a location."""
    parent = f"projects/{project}/locations/us-central1"
    base = f"{emulator.rest}/v1/{parent}"

    uploaded = requests.post(f"{base}/models:upload", json={"modelId": "mine", "model": MODEL}, timeout=10)

    assert uploaded.ok
    assert requests.get(f"{base}/models/mine@1:listVersions", timeout=10).json()["models"][0]["versionId"] == "1"
    assert requests.get(f"{base}/models", timeout=10).json()["models"][0]["displayName"]
    assert requests.get(base, timeout=10).json()["locationId"] == "us-central1"
    assert requests.get(base.rpartition("/")[0], timeout=10).json()["locations"]
    assert requests.get(f"{base}/operations", timeout=10).ok


@pytest.mark.parametrize("at", ["@", "%40"])
def test_an_at_sign_may_be_encoded(emulator: Emulator, parent: str, at: str) -> None:
    """Google's Python client encodes it, and gcloud doesn't."""
    name = f"{upload(emulator, parent)['response']['model']}{at}1"

    answer = requests.post(
        f"{emulator.rest}/v1/{name}:mergeVersionAliases", json={"versionAliases": ["gold"]}, timeout=10
    )

    assert answer.json()["versionAliases"] == ["default", "gold"]


def test_an_empty_list_is_an_empty_object(emulator: Emulator, parent: str) -> None:
    """Proto3 omits what is empty."""
    assert requests.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).json() == {}


_UNKNOWN = "Invalid JSON payload received. Unknown name"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Invalid JSON payload received. Unexpected end of string. Expected a value."),
        (b'{"modelId": "a" 1}', "Invalid JSON payload received. Unexpected token."),
        (b'{"modelId": NaN}', "Invalid JSON payload received. Unexpected token."),
        (b'{"modelId": ' + b"9" * 5000 + b"}", "Invalid JSON payload received. Unexpected token."),
        (b"\xff", "Invalid JSON payload received. It is not UTF-8."),
        (b"[" * 100_000, "Invalid JSON payload received. It is nested too deeply."),
        (b'{"modelId": "a", "modelId": "b"}', "Invalid JSON payload received. A name comes twice in one object."),
        (b"[1]", f'{_UNKNOWN} "": Root element must be a message.'),
        (b"null", f'{_UNKNOWN} "": Root element must be a message.'),
        (b"[]", f'{_UNKNOWN} "": Root element must be a message.'),
        (b'""', f'{_UNKNOWN} "": Root element must be a message.'),
        (b"false", f'{_UNKNOWN} "": Root element must be a message.'),
        (b"0", f'{_UNKNOWN} "": Root element must be a message.'),
    ],
)
def test_a_body_that_is_not_an_object_is_refused(emulator: Emulator, parent: str, body: bytes, message: str) -> None:
    """The error is 400 and INVALID_ARGUMENT, in the words of Google's front end."""
    answer = requests.post(f"{emulator.rest}/v1/{parent}/models:upload", data=body, timeout=10)

    assert answer.status_code == 400
    assert error(answer)["status"] == "INVALID_ARGUMENT"
    assert error(answer)["message"] == message


_TYPES = "type.googleapis.com/google"


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ('{"nonsense": 1}', "", f'{_UNKNOWN} "nonsense": Cannot find field.'),
        ('{"model": {"nonsense": 1}}', "model", f"{_UNKNOWN} \"nonsense\" at 'model': Cannot find field."),
        ('{"model": {"\\ud800": 1}}', "model", f"{_UNKNOWN} \"?\" at 'model': Cannot find field."),
        ('{"modelId": 3}', "model_id", "Invalid value at 'model_id' (TYPE_STRING), 3"),
        ('{"modelId": "\\ud800"}', "model_id", "Invalid value at 'model_id' (TYPE_STRING), \"\\ud800\""),
        ('{"modelId": {}}', "model_id", "Invalid value at 'model_id' (TYPE_STRING), {}"),
        ('{"modelId": {"x": 1}}', "model_id", f"{_UNKNOWN} \"x\" at 'model_id': Cannot find field."),
        ('{"modelId": ["x"]}', "", f'{_UNKNOWN} "modelId": Proto field is not repeating, cannot start list.'),
        ('{"model": "x"}', "model", f"Invalid value at 'model' ({_TYPES}.cloud.aiplatform.v1.Model)"),
        ('{"model": ""}', "model", f"Invalid value at 'model' ({_TYPES}.cloud.aiplatform.v1.Model)"),
        ('{"model": []}', "", f'{_UNKNOWN} "model": Proto field is not repeating, cannot start list.'),
        (
            '{"model": {"containerSpec": {"ports": [{}, 8080]}}}',
            "model.container_spec.ports[1]",
            f"Invalid value at 'model.container_spec.ports[1]' ({_TYPES}.cloud.aiplatform.v1.Port), 8080",
        ),
        (
            '{"model": {"container_spec": {"ports": [{"containerPort": 1.5}]}}}',
            "model.container_spec.ports[0].container_port",
            "Invalid value at 'model.container_spec.ports[0].container_port' (TYPE_INT32), 1.5",
        ),
        (
            '{"model": {"versionAliases": ["a", null]}}',
            "model.version_aliases[1]",
            "Invalid value at 'model.version_aliases[1]' (TYPE_STRING), null",
        ),
        (
            '{"model": {"versionAliases": "a"}}',
            "model.version_aliases",
            "Invalid value at 'model.version_aliases' (TYPE_STRING), \"a\"",
        ),
        (
            '{"model": {"supportedDeploymentResourcesTypes": ["X"]}}',
            "model.supported_deployment_resources_types[0]",
            (
                "Invalid value at 'model.supported_deployment_resources_types[0]'"
                f' ({_TYPES}.cloud.aiplatform.v1.Model.DeploymentResourcesType), "X"'
            ),
        ),
        (
            '{"model": {"containerSpec": {"deploymentTimeout": "10m"}}}',
            "model.container_spec.deployment_timeout",
            (
                f"Invalid value at 'model.container_spec.deployment_timeout' ({_TYPES}.protobuf.Duration),"
                " Field 'deploymentTimeout', Illegal duration format; duration must end with 's'"
            ),
        ),
        (
            '{"model": {"createTime": 1.5}}',
            "model.create_time",
            (
                f"Invalid value at 'model.create_time' ({_TYPES}.protobuf.Timestamp),"
                " Field 'createTime', Invalid data type for timestamp, value is 1.5"
            ),
        ),
        (
            '{"model": {"baseModelSource": {"modelGardenSource": {}, "genieSource": {}}}}',
            "model.base_model_source",
            (
                "Invalid value at 'model.base_model_source' (oneof),"
                " oneof field 'source' is already set. Cannot set 'genieSource'"
            ),
        ),
        (
            '{"model": {"labels": []}}',
            "model",
            "Invalid value at 'model' (Map), Cannot bind a list to map for field 'labels'.",
        ),
        (
            '{"model": {"labels": {"a": "b", "c": ["secret"]}}}',
            "model.labels[1]",
            f"{_UNKNOWN} \"value\" at 'model.labels[1]': Proto field is not repeating, cannot start list.",
        ),
    ],
)
def test_json_that_is_not_a_request_is_refused(
    emulator: Emulator, parent: str, body: str, field: str, message: str
) -> None:
    """The error is 400 and INVALID_ARGUMENT, in the words of Google's front end, with the mistake's path."""
    answer = requests.post(f"{emulator.rest}/v1/{parent}/models:upload", data=body, timeout=10)

    assert answer.status_code == 400
    assert error(answer)["status"] == "INVALID_ARGUMENT"
    assert error(answer)["message"] == message
    (detail,) = error(answer)["details"]
    (violation,) = detail["fieldViolations"]
    assert violation == ({"field": field} if field else {}) | {"description": message}


_TOO_LARGE = "9" * 401


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (":upload", '{"model": {"modelSourceInfo": {"sourceType": 1e400}}}', "model.model_source_info.source_type"),
        (":upload", '{"model": {"modelSourceInfo": {"sourceType": "\\ud800"}}}', "model.model_source_info.source_type"),
        (
            ":upload",
            '{"model": {"supportedDeploymentResourcesTypes": [1e400]}}',
            "model.supported_deployment_resources_types[0]",
        ),
        (":upload", f'{{"model": {{"metadata": {_TOO_LARGE}}}}}', "model.metadata"),
        (":upload", f'{{"model": {{"metadata": [{{"a": [-{_TOO_LARGE}]}}]}}}}', "model.metadata"),
        (":upload", '{"model": {"metadata": [1e400]}}', "model.metadata"),
        (":upload", '{"model": {"labels": {"\\ud800": "a"}}}', "model.labels[0].key"),
        (
            ":upload",
            '{"model": {"explanationSpec": {"metadata": {"inputs": {"\\ud800": {}}}}}}',
            "model.explanation_spec.metadata.inputs[0].key",
        ),
        ("/m?updateMask=metadata", f'{{"metadata": {_TOO_LARGE}}}', "model.metadata"),
        (
            "/m?updateMask=explanationSpec",
            f'{{"explanationSpec": {{"parameters": {{"outputIndices": [{_TOO_LARGE}]}}}}}}',
            "model.explanation_spec.parameters.output_indices",
        ),
        (
            "/m/evaluations:import",
            f'{{"modelEvaluation": {{"metrics": {{"auc": {_TOO_LARGE}}}}}}}',
            "model_evaluation.metrics",
        ),
    ],
)
@pytest.mark.parametrize("api", ["v1", "v1beta1"])
def test_what_protobuf_cannot_hold_is_refused(
    emulator: Emulator, parent: str, api: str, path: str, body: str, field: str
) -> None:
    """JSON can express numbers that don't fit into a double, and half of a surrogate pair."""
    method = "PATCH" if "updateMask" in path else "POST"
    answer = requests.request(method, f"{emulator.rest}/{api}/{parent}/models{path}", data=body, timeout=10)

    assert error(answer)["status"] == "INVALID_ARGUMENT"
    assert error(answer)["message"].startswith(f"Invalid value at '{field}'")


@pytest.mark.parametrize(
    "model",
    [
        {"containerSpec": {"imageUri": "a/b", "env": {"API_KEY": "s3cret"}}},
        {"containerSpec": {"imageUri": "a/b", "env": {"name": "API_KEY", "value": "s3cret"}}},
        {"container_spec": {"image_uri": "a/b", "env": "API_KEY=s3cret"}},
        {"containerSpec": {"imageUri": "a/b", "env": ["API_KEY=s3cret"]}},
        {"containerSpec": {"imageUri": "a/b", "env": [{"name": "API_KEY", "value": {"s3cret": "s3cret"}}]}},
        {"containerSpec": {"imageUri": "a/b", "env": [{"name": "API_KEY", "value": ["s3cret"]}]}},
        {"containerSpec": "API_KEY=s3cret"},
        {"labels": "s3cret"},
        {"labels": ["s3cret"]},
        {"labels": {"team": ["s3cret"]}},
        {"labels": {"team": {"s3cret": "s3cret"}}},
        {"metadata": ["s3cret", 10**401]},
        {"metadata": {"s3cret": float("inf")}},
    ],
)
def test_an_error_does_not_repeat_possible_secrets(emulator: Emulator, parent: str, model: dict[str, Any]) -> None:
    """The error repeats neither a container's environment nor labels nor metadata."""
    body = json.dumps({"model": {"displayName": "m", **model}}).replace("Infinity", "1e400")
    answer = requests.post(f"{emulator.rest}/v1/{parent}/models:upload", data=body, timeout=10)

    assert error(answer)["status"] == "INVALID_ARGUMENT"
    assert "s3cret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", ":upload", {"model": {"displayName": "x", "display_name": "y"}}),
        ("POST", ":upload", {"model_id": "a", "modelId": "b"}),
        ("POST", ":upload", {"model": {"containerSpec": None, "container_spec": {}}}),
        ("PATCH", "/m?updateMask=displayName", {"displayName": "x", "display_name": "y"}),
    ],
)
def test_a_field_in_both_spellings_is_set_twice(
    emulator: Emulator, parent: str, method: str, path: str, body: dict[str, Any]
) -> None:
    """It's unclear which of the two values is meant."""
    answer = requests.request(method, f"{emulator.rest}/v1/{parent}/models{path}", json=body, timeout=10)

    assert error(answer)["status"] == "INVALID_ARGUMENT"
    assert "is set twice" in error(answer)["message"]


def test_an_empty_line_before_a_request_is_ignored(emulator: Emulator) -> None:
    """RFC 9112, 2.2: some clients send one after a body."""
    head = f"GET /emulator/health HTTP/1.1\r\nHost: {emulator.rest.partition('://')[2]}\r\nConnection: close\r\n\r\n"

    assert status_of(exchange(emulator, b"\r\n" + head.encode())) == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Host: {}\r\nX : y\r\n", 400),
        ("Host: {}\r\nX : y\r\nA: b\r\n", 400),
        ("From : y\r\nHost: {}\r\n", 400),
        ("Host: {}\r\nFrom : y\r\n", 400),
        (" a: b\r\nHost: {}\r\n", 400),
        ("Host: {}\r\nContent-Type: multipart/form-data; boundary=x\r\n", 200),
        ("Host: {}\r\nContent-Type: multipart/form-data\r\n", 200),
        ("Host: {}\r\nFrom: y\r\n", 200),
    ],
)
def test_a_malformed_header_is_refused(emulator: Emulator, lines: str, status: int) -> None:
    """RFC 9112, 5.1: another server could read such a header differently, which attackers can exploit."""
    lines = lines.format(emulator.rest.partition("://")[2])
    head = f"GET /emulator/health HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"

    assert status_of(exchange(emulator, head.encode())) == status


def test_every_mistake_is_reported(emulator: Emulator, parent: str) -> None:
    """Each mistake is a line, with its path in the details. Only the first 100 are reported."""
    url = f"{emulator.rest}/v1/{parent}/models/m?updateMask=labels"
    answer = requests.patch(url, json={"labels": 1, "x": 2, "displayName": 3}, timeout=10)

    content = error(answer)
    assert content["message"].splitlines() == [
        "Invalid value at 'model' (Map), Cannot bind a scalar to map for field 'labels'.",
        f"{_UNKNOWN} \"x\" at 'model': Cannot find field.",
        "Invalid value at 'model.display_name' (TYPE_STRING), 3",
    ]
    violations = content["details"][0]["fieldViolations"]
    assert [violation["field"] for violation in violations] == ["model", "model", "model.display_name"]
    assert [violation["description"] for violation in violations] == content["message"].splitlines()
    many = requests.patch(url, json={f"x{n}": n for n in range(1000)}, timeout=10)
    assert len(error(many)["message"].splitlines()) == 100


@pytest.mark.parametrize(
    "model",
    [
        {"labels": {"a": 5318008}},
        {"labels": {"a": {"b5318008": "5318008"}}},
        {"labels": {"a": "5318008\ud800"}},
        {"metadata": "5318008\ud800"},
        {"containerSpec": {"env": [{"name": "A", "value": 5318008}]}},
    ],
)
def test_private_values_are_not_repeated(emulator: Emulator, parent: str, model: dict[str, Any]) -> None:
    """Labels, metadata and the environment are private, even if Google's front end shows them."""
    answer = requests.post(f"{emulator.rest}/v1/{parent}/models:upload", json={"model": model}, timeout=10)

    assert answer.status_code == 400
    assert error(answer)["message"].startswith("Invalid value at 'model.")
    assert "5318008" not in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "nonsense=1",
        "$nonsense=1",
        "%24nonsense=1",
        "parent=x",
        "pageSize=x",
        "pageSize=1&pageSize=2",
        "read_mask.paths=a",
        "alt=media",
        "filter=%ff",
        "callback=x",
        "$callback=x",
    ],
)
def test_an_invalid_parameter_is_refused(emulator: Emulator, parent: str, query: str) -> None:
    """A parameter is refused if it's unknown, in the path, of another type, given twice, or unsupported."""
    answer = requests.get(f"{emulator.rest}/v1/{parent}/models?{query}", timeout=10)

    assert error(answer)["status"] == "INVALID_ARGUMENT"


def test_a_parameter_beside_a_body_is_refused(emulator: Emulator, parent: str) -> None:
    """If the body is the request, the query can't set fields. If the body is the model, the query can set the mask."""
    base = f"{emulator.rest}/v1/{parent}/models"
    posted = requests.post(f"{base}:upload?modelId=x", json={"model": MODEL}, timeout=10)
    patched = requests.patch(f"{base}/mine?model=x", json={}, timeout=10)
    got = requests.request("GET", f"{base}/mine", data=b"{}", timeout=10)

    for answer in (posted, patched, got):
        assert error(answer)["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("page_size=x", "Invalid value at 'page_size' (TYPE_INT32), \"x\""),
        ("pageSize=99999999999", "Invalid value at 'page_size' (TYPE_INT32), \"99999999999\""),
        (
            "x=1",
            f"{_UNKNOWN} \"x\": Cannot bind query parameter. Field 'x' could not be found in request message.",
        ),
    ],
)
def test_a_parameter_is_refused_in_the_front_ends_words(
    emulator: Emulator, parent: str, query: str, message: str
) -> None:
    """The error names the parameter's type and value."""
    answer = requests.get(f"{emulator.rest}/v1/{parent}/models?{query}", timeout=10)

    assert error(answer)["message"] == message
    assert error(answer)["details"][0]["fieldViolations"][0]["description"] == message


def test_parameters_of_googles_front_end_are_accepted(emulator: Emulator, parent: str) -> None:
    """Parameters that all of Google's services accept have no effect here. A boolean is `true` or `false`."""
    query = "alt=json&prettyPrint=false&key=abc&$unique=gc1&$.xgafv=2&%24prettyPrint=false&$apiVersion=v1"
    assert requests.get(f"{emulator.rest}/v1/{parent}/models?{query}", timeout=10).ok

    operations = f"{emulator.rest}/v1/{parent}/operations"
    assert requests.get(f"{operations}?returnPartialSuccess=true", timeout=10).ok
    assert requests.get(f"{operations}?returnPartialSuccess=yes", timeout=10).status_code == 400


def test_errors_have_googles_shape(emulator: Emulator, parent: str) -> None:
    """An error has a code, a message, a status, and details with their type."""
    answer = requests.post(f"{emulator.rest}/v1/{parent}/models:upload", json={"modelId": "X"}, timeout=10)

    content = error(answer)
    assert content["status"] == "INVALID_ARGUMENT"
    assert content["details"][0]["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert content["details"][0]["fieldViolations"][0]["field"] == "model_id"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/projects/p/locations/l/endpoints", 404),
        ("POST", "/v1/projects/p/locations/l/models", 404),
        ("GET", "/v1/projects/p/locations/l/models/m:nonsense", 404),
        ("GET", "/v2/projects/p/locations/l/models", 404),
        ("GET", "/ui/projects/p/locations/l/models", 404),
        ("PUT", "/v1/projects/p/locations/l/models/m", 404),
        ("OPTIONS", "/v1/projects/p/locations/l/models/m", 404),
        ("GET", "/v1/projects/p/locations/l/models/%ff", 400),
        ("GET", "/v1/projects/p/locations/l/models/a%2Fb", 404),
        ("TRACE", "/", 404),
    ],
)
def test_an_unknown_path_is_reported_in_a_sentence(emulator: Emulator, method: str, path: str, status: int) -> None:
    """The response is an error that clients don't retry."""
    answer = requests.request(method, f"{emulator.rest}{path}", timeout=10)

    assert answer.status_code == status
    assert error(answer)["message"]


def test_a_head_response_has_no_body(emulator: Emulator) -> None:
    """The response has no body, but states its length."""
    answer = requests.head(f"{emulator.rest}/v1/x", timeout=10)

    assert answer.status_code == 404
    assert answer.content == b""


# --- ways to send a request --------------------------------------------------


@pytest.mark.parametrize("body", [b"", b'""', b"{}", b"null", b"[1]", b'{"name": "x", "nonsense": 1}', b"{", b"\xff"])
def test_a_post_without_a_mapped_body_accepts_any_body(start: Start, parent: str, body: bytes) -> None:
    """Google's Node client sends two quotes as the body of CancelOperation."""
    emulator = start(polls_until_done=9)
    for method, expected in (("wait", {"done": True}), ("cancel", {})):
        name = upload(emulator, parent)["name"]
        for api in ("v1", "v1beta1", "ui"):
            answer = requests.post(f"{emulator.rest}/{api}/{name}:{method}", data=body, timeout=10)
            assert (answer.status_code, expected.items() <= answer.json().items()) == (200, True), answer.text
        assert requests.get(f"{emulator.rest}/v1/{name}", timeout=10).json()["done"]


def test_a_post_without_a_mapped_body_reads_its_query(start: Start, parent: str) -> None:
    """Fields in the body have no effect."""
    emulator = start(polls_until_done=9)
    name = upload(emulator, parent)["name"]

    answer = requests.post(f"{emulator.rest}/v1/{name}:wait?timeout=0s", json={"timeout": "9s"}, timeout=10)

    assert "done" not in answer.json()
    assert requests.post(f"{emulator.rest}/v1/{name}:wait?nonsense=1", timeout=10).status_code == 400


def test_the_method_can_be_in_a_header(emulator: Emulator, parent: str) -> None:
    """X-HTTP-Method-Override replaces the request's method with GET, PATCH, DELETE or POST."""
    base = f"{emulator.rest}/v1/{parent}/models"
    upload(emulator, parent, modelId="mine")

    def send(method: str, url: str, sent: str = "POST", **arguments: Any) -> requests.Response:
        headers = {"X-HTTP-Method-Override": method}
        return requests.request(sent, url, headers=headers, timeout=10, **arguments)

    assert send("GET", f"{base}/mine").json()["displayName"] == "churn"
    assert send("get", base, "PUT").json()["models"][0]["displayName"] == "churn"
    assert send("PATCH", f"{base}/mine?updateMask=displayName", json={"displayName": "new"}).ok
    assert send("POST", f"{base}/mine@1:mergeVersionAliases", "PUT", json={"versionAliases": ["gold"]}).ok
    assert send("", f"{base}/mine@1:mergeVersionAliases", json={"versionAliases": ["silver"]}).ok
    mine = requests.get(f"{base}/mine", timeout=10).json()
    assert (mine["displayName"], mine["versionAliases"]) == ("new", ["default", "gold", "silver"])
    assert send("DELETE", f"{base}/mine").json()["done"]
    assert requests.get(f"{base}/mine", timeout=10).status_code == 404

    assert send("PUT", base).status_code == 404
    assert send("NONSENSE", base).status_code == 404
    assert [request.rpc for request in emulator.requests()].count("DeleteModel") == 1


def test_two_methods_in_headers_are_refused(emulator: Emulator, parent: str) -> None:
    """A proxy in between could have used the other method."""
    host = str(emulator.rest).removeprefix("http://")
    lines = [f"POST /v1/{parent}/models HTTP/1.1", f"Host: {host}", "Content-Length: 0", "Connection: close"]
    override = "X-HTTP-Method-Override: "

    for methods, status in ((["GET", "DELETE"], 400), (["GET", "GET"], 200), (["GET", ""], 200)):
        sent = "\r\n".join([*lines, *(override + method for method in methods), "", ""])
        assert status_of(exchange(emulator, sent.encode())) == status


def test_a_method_in_a_header_does_not_work_for_the_emulators_own_paths(emulator: Emulator, parent: str) -> None:
    """The header only works for Google's methods, so a GET can't reset anything."""
    upload(emulator, parent, modelId="mine")
    headers = {"X-HTTP-Method-Override": "POST"}

    assert requests.get(f"{emulator.rest}/emulator/reset", headers=headers, timeout=10).status_code == 404
    assert requests.get(f"{emulator.rest}/v1/{parent}/models/mine", timeout=10).ok


def test_a_long_query_comes_as_a_form(emulator: Emulator, parent: str) -> None:
    """google-api-python-client sends a POST if a GET's URL is longer than 2,048 characters."""
    upload(emulator, parent, modelId="mine")
    terms = ' AND display_name="churn"' * 90
    query = {"alt": "json", "pageSize": "1", "filter": f'display_name="churn"{terms}'}
    headers = {"X-HTTP-Method-Override": "GET", "Content-Type": "application/x-www-form-urlencoded"}
    body = urllib.parse.urlencode(query)
    assert len(body) > 2048

    def post(url: str, body: str | bytes) -> requests.Response:
        return requests.post(url, data=body, headers=headers, timeout=10)

    answer = post(f"{emulator.rest}/v1/{parent}/models", body)

    assert [model["displayName"] for model in answer.json()["models"]] == ["churn"]
    assert emulator.requests()[-1].message.page_size == 1
    # Errors in a form are like those in a query. If a request has both, they're one query.
    both = f"{emulator.rest}/v1/{parent}/models?pageSize=1"
    assert error(post(both, "pageSize=2"))["details"]
    assert post(both, "filter=").ok
    assert error(post(f"{emulator.rest}/v1/{parent}/models", b"\xff"))["status"] == "INVALID_ARGUMENT"
    # Without the header, the body isn't a query.
    del headers["X-HTTP-Method-Override"]
    assert post(f"{emulator.rest}/v1/{parent}/models", body).status_code == 404


# --- versions of the API -----------------------------------------------------


def test_v1beta1_is_served_beside_v1(emulator: Emulator, parent: str) -> None:
    """Both versions serve the same models. An operation keeps the API version that started it, however it's read."""
    operation = upload(emulator, parent, "v1beta1", modelId="mine")
    name = operation["name"]

    assert operation["response"]["@type"] == "type.googleapis.com/google.cloud.aiplatform.v1beta1.UploadModelResponse"
    for api in ("v1", "v1beta1", "ui"):
        assert requests.get(f"{emulator.rest}/{api}/{name}", timeout=10).json() == operation
    for api in ("v1", "v1beta1"):
        assert requests.get(f"{emulator.rest}/{api}/{parent}/models/mine", timeout=10).json()["displayName"] == "churn"
        listed = requests.get(f"{emulator.rest}/{api}/{parent}/models", timeout=10).json()
        assert listed["models"][0]["name"] == f"{parent}/models/mine"
    assert upload(emulator, parent)["metadata"]["@type"].startswith("type.googleapis.com/google.cloud.aiplatform.v1.")


# --- HTTP --------------------------------------------------------------------


def test_a_connection_is_reused(emulator: Emulator, parent: str) -> None:
    """Several requests use one connection, even after a failed one."""
    request = f"GET /v1/{parent}/models HTTP/1.1\r\nHost: {emulator.rest}\r\n\r\n".replace("http://", "").encode()
    missing = request.replace(b"/models", b"/nonsense")

    last = request.replace(b"Host:", b"Connection: close\r\nHost:")

    received = exchange(emulator, request + missing + last)

    assert re.findall(rb"HTTP/1.1 ([0-9]{3})", received) == [b"200", b"404", b"200"]


def post(emulator: Emulator, parent: str, headers: str, body: bytes, host: str = "") -> bytes:
    """Return the bytes of an upload request."""
    host = host or str(emulator.rest).removeprefix("http://")
    return f"POST /v1/{parent}/models:upload HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
    ],
)
def test_a_body_needs_a_valid_length(emulator: Emulator, parent: str, headers: str) -> None:
    """An invalid length closes the connection, so the body can't be read as a second request."""
    received = exchange(emulator, post(emulator, parent, headers, b"{}GET /emulator/health HTTP/1.1\r\n\r\n"))

    assert status_of(received) == 400
    assert received.count(b"\r\nServer: ") == 1
    assert emulator.requests() == ()


def test_a_body_may_come_in_chunks(emulator: Emulator, parent: str) -> None:
    """A client can send a body whose length it doesn't know yet."""
    body = json.dumps({"modelId": "m", "model": MODEL}).encode()

    def sent() -> Iterator[bytes]:
        yield body[:10]
        yield body[10:]

    assert requests.post(f"{emulator.rest}/v1/{parent}/models:upload", data=sent(), timeout=10).ok
    assert requests.get(f"{emulator.rest}/v1/{parent}/models/m", timeout=10).json()["displayName"] == "churn"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_refused(emulator: Emulator, parent: str, chunked: bool) -> None:
    """A body with a Content-Length is refused before it's read. A chunked one is refused as soon as it's too long."""
    host, _, port = str(emulator.rest).removeprefix("http://").partition(":")
    header = "Transfer-Encoding: chunked" if chunked else "Content-Length: 99999999999"
    body = f"{2 * LONGEST_REQUEST:x}\r\n".encode() + b" " * (LONGEST_REQUEST + 1) if chunked else b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(post(emulator, parent, f"{header}\r\n", body))
        response = http.client.HTTPResponse(connection)
        response.begin()
        content = json.loads(response.read())["error"]

    assert (response.status, content["message"]) == (413, f"The body is longer than {LONGEST_REQUEST} bytes.")
    assert emulator.requests() == ()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_not_http_is_refused(emulator: Emulator, sent: bytes) -> None:
    """The status is 400, and the next connection works."""
    assert status_of(exchange(emulator, sent)) == 400
    assert requests.get(f"{emulator.rest}/emulator/health", timeout=10).ok


def test_a_refused_client_gets_the_response(emulator: Emulator, parent: str) -> None:
    """A client gets the response even if it's still sending a large body, which isn't read."""
    headers = "Content-Length: 20000000\r\nConnection: close\r\n"

    received = exchange(emulator, post(emulator, parent, headers, b" " * 20_000_000, host="evil.example"))

    assert status_of(received) == 403
    assert received.endswith(b"}")


def test_half_a_body_is_not_a_request(emulator: Emulator, parent: str) -> None:
    """If a client leaves in the middle of its body, the request is ignored."""
    assert exchange(emulator, post(emulator, parent, "Content-Length: 100\r\n", b'{"model":'), leave=True) == b""
    assert emulator.requests() == ()


# --- allowed addresses and origins -------------------------------------------


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("LOCALHOST:{port}", True),
        ("[::1]:{port}", True),
        ("127.0.0.1", False),
        ("127.0.0.1:1", False),
        ("evil.example:{port}", False),
        ("192.0.2.1:{port}", False),
        ("[nonsense]:{port}", False),
        ("", False),
    ],
)
def test_only_its_own_address_is_answered(emulator: Emulator, host: str, served: bool) -> None:
    """Other host names are refused, because a web page could resolve its own name to this machine."""
    port = str(emulator.rest).rpartition(":")[2]

    answer = requests.get(f"{emulator.rest}/emulator/health", headers={"Host": host.format(port=port)}, timeout=10)

    assert answer.status_code == (200 if served else 403)


@pytest.mark.parametrize(
    ("hosts", "version", "status"),
    [
        ("Host: {own}\r\n", "1.1", 200),
        ("Host: {own}\r\nHost: evil.example\r\n", "1.1", 400),
        ("", "1.1", 400),
        ("", "1.0", 403),
    ],
)
def test_a_request_has_one_host(emulator: Emulator, hosts: str, version: str, status: int) -> None:
    """A proxy in between could have used the other host."""
    hosts = hosts.format(own=str(emulator.rest).removeprefix("http://"))

    for target in ("", emulator.rest) if version == "1.1" else ("",):
        sent = f"GET {target}/emulator/health HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n"
        assert status_of(exchange(emulator, sent.encode())) == status


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://{own}/emulator/health", "{own}", 200),
        ("HTTP://LOCALHOST:{port}/emulator/health?x=1", "{own}", 200),
        ("http://{own}/v1/projects/p/locations/l/models?pageSize=1", "{own}", 200),
        ("http://{own}/emulator/health", "evil.example", 200),
        ("http://{own}", "{own}", 404),
        ("http://{own}?x=1", "{own}", 404),
        ("http://evil.example:{port}/emulator/health", "{own}", 403),
        ("http://evil.example/emulator/health", "{own}", 403),
        ("http://{own}@evil.example/emulator/health", "{own}", 403),
        ("http://evil.example@{own}/emulator/health", "{own}", 403),
        ("http:///emulator/health", "{own}", 400),
        ("ftp://{own}/emulator/health", "{own}", 404),
    ],
)
def test_a_target_may_be_a_whole_address(emulator: Emulator, target: str, host: str, status: int) -> None:
    """Clients send one to a proxy. The address replaces the Host header, and the same rules apply."""
    own = str(emulator.rest).removeprefix("http://")
    names = {"own": own, "port": own.partition(":")[2]}
    sent = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".format(**names)

    assert status_of(exchange(emulator, sent.encode())) == status


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({"Origin": "{rest}"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_pages_of_other_sites_are_refused(emulator: Emulator, headers: dict[str, str], served: bool) -> None:
    """The browser's headers say which site a request comes from."""
    sent = {name: value.format(rest=emulator.rest) for name, value in headers.items()}

    answer = requests.post(f"{emulator.rest}/emulator/reset", headers=sent, timeout=10)

    assert answer.status_code == (200 if served else 403)


@pytest.mark.parametrize(
    ("host", "origin", "served"),
    [
        ("192.0.2.1:{port}", "http://192.0.2.1:{port}", True),
        ("192.0.2.1:{port}", "HTTP://192.0.2.1:{port}", True),
        ("192.0.2.1:{port}", "http://192.0.2.7:{port}", False),
        ("192.0.2.1:{port}", "http://127.0.0.1:{port}", False),
        ("192.0.2.1:{port}", "http://localhost:{port}", False),
        ("localhost:{port}", "http://127.0.0.1:{port}", False),
        ("[2001:db8::1]:{port}", "http://[2001:db8::1]:{port}", True),
        ("[2001:db8::1]:{port}", "http://[2001:db8::2]:{port}", False),
        ("192.0.2.1:{port}", "https://192.0.2.1:{port}", False),
        ("192.0.2.1:{port}", "ftp://192.0.2.1:{port}", False),
        ("192.0.2.1:{port}", "192.0.2.1:{port}", False),
        ("192.0.2.1:{port}", "http://192.0.2.1:{port}/", False),
        ("192.0.2.1:{port}", "http://192.0.2.1", False),
        ("192.0.2.1:{port}", "http://x@192.0.2.1:{port}", False),
        ("192.0.2.1:{port}", "http://192.0.2.1:{port}, http://192.0.2.1:{port}", False),
        ("192.0.2.1:{port}", "null", False),
        ("192.0.2.1:{port}", "", False),
        ("vertex:9000", "http://vertex:9000", True),
        ("vertex", "http://vertex", True),
        ("vertex:80", "http://vertex", True),
        ("vertex:9000", "http://vertex:9001", False),
        ("vertex:9000", "https://vertex:9000", False),
        ("vertex:9000", "http://192.0.2.1:{port}", False),
    ],
)
def test_a_page_reaches_only_the_address_it_came_from(start: Start, host: str, origin: str, served: bool) -> None:
    """The origin must be the request's address, even if the server has many addresses."""
    emulator = start(host="0.0.0.0", grpc_port=None, allowed_hosts=["vertex"])  # noqa: S104 - this is what's tested
    port = str(emulator.rest).rpartition(":")[2]
    lines = [f"Host: {host}", f"Origin: {origin}", "Content-Length: 0", "Connection: close"]

    for method, path in (("POST", "/emulator/reset"), ("GET", "/emulator/requests"), ("OPTIONS", "/emulator/faults")):
        sent = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).format(port=port)
        expected = (404 if method == "OPTIONS" else 200) if served else 403
        assert status_of(exchange(f"127.0.0.1:{port}", sent.encode())) == expected


@pytest.mark.parametrize(
    "headers",
    [
        ["Origin: {own}", "Origin: http://evil.example"],
        ["Origin: http://evil.example", "Origin: {own}"],
        ["Origin: {own}", "Origin:"],
        ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin"],
        ["Sec-Fetch-Site: same-origin, cross-site"],
        ["Sec-Fetch-Site:"],
        ["Origin: {own}", "Sec-Fetch-Site: cross-site"],
    ],
)
def test_every_header_about_the_origin_counts(emulator: Emulator, headers: list[str]) -> None:
    """If a header comes twice, one good value isn't enough."""
    host = str(emulator.rest).removeprefix("http://")
    lines = ["POST /emulator/reset HTTP/1.1", f"Host: {host}", *headers, "Content-Length: 0", "Connection: close", ""]
    sent = "\r\n".join([*lines, ""]).format(own=emulator.rest)

    assert status_of(exchange(emulator, sent.encode())) == 403


def test_a_page_under_tls_has_an_https_origin(start: Start, tmp_path: Path) -> None:
    """A page that was loaded over plain HTTP counts as another site."""
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    emulator = start(grpc_port=None, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    origin = str(emulator.rest)

    statuses = []
    for given in (origin, origin.replace("https:", "http:")):
        connection = http.client.HTTPSConnection(
            origin.removeprefix("https://"),
            context=ssl._create_unverified_context(),  # noqa: S323 - the server's identity isn't tested here
            timeout=10,
        )
        connection.request("POST", "/emulator/reset", headers={"Origin": given})
        statuses.append(connection.getresponse().status)
        connection.close()

    assert statuses == [200, 403]


def test_a_server_on_all_interfaces_answers_to_any_ip_address(start: Start) -> None:
    """It also answers to the machine's own name, which web pages can't have, and to the allowed names."""
    emulator = start(host="0.0.0.0", grpc_port=None, allowed_hosts=["Vertex"])  # noqa: S104 - this is what's tested
    port = str(emulator.rest).rpartition(":")[2]

    def status(host: str) -> int:
        headers = {"Host": f"{host}:{port}"}
        return requests.get(f"http://127.0.0.1:{port}/emulator/health", headers=headers, timeout=10).status_code

    assert status("192.0.2.1") == 200
    assert status("localhost") == 200
    assert status(socket.gethostname()) == 200
    assert status("vertex") == 200
    assert status("evil.example") == 403
    port, served = "9000", port
    elsewhere = f"http://127.0.0.1:{served}/emulator/health"
    assert requests.get(elsewhere, headers={"Host": "vertex:9000"}, timeout=10).status_code == 200
    assert requests.get(elsewhere, headers={"Host": "localhost:9000"}, timeout=10).status_code == 403


def test_a_service_account_gets_a_token(emulator: Emulator) -> None:
    """/token returns the format that google-auth reads. The same assertion always gets the same, useless token."""
    answer = requests.post(f"{emulator.rest}/token", data={"assertion": "secret"}, timeout=10).json()

    assert {"token_type": "Bearer", "expires_in": 3600}.items() <= answer.items()
    assert "secret" not in answer["access_token"]


def test_requests_are_not_logged(emulator: Emulator, parent: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the request line nor errors are logged, because both may contain a label or a token."""
    requests.get(f"{emulator.rest}/v1/{parent}/models?access_token=secret", timeout=10)
    exchange(emulator, b"secret\r\n\r\n")

    assert capfd.readouterr() == ("", "")
