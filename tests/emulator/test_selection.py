"""The system parameter ``fields`` chooses which fields a response has."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import types

from vertex_registry.emulator._selection import MAXIMUM_DEPTH, MAXIMUM_LENGTH, parse_selection
from vertex_registry.emulator._status import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry.emulator import Emulator

    Start = Callable[..., Emulator]
    Connect = Callable[..., Any]

MODEL = {
    "displayName": "churn",
    "artifactUri": "gs://bucket/churn",
    "labels": {"team": "growth", "tier": "1"},
    "versionAliases": ["gold"],
    "metadataSchemaUri": "gs://bucket/schema",
    "metadata": {"auc": 0.9, "inner": {"a": 1, "b": [{"c": 2, "d": 3}, 4]}},
    "containerSpec": {
        "imageUri": "example.com/serve:1",
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "predictRoute": "/p",
    },
}


@pytest.fixture(name="models")
def _models(emulator: Emulator, parent: str) -> str:
    """Return the URL of the models of an emulator that has two."""
    base = f"{emulator.rest}/v1/{parent}/models"
    for name in ("one", "two"):
        answer = requests.post(f"{base}:upload", json={"modelId": name, "model": MODEL}, timeout=60)
        assert answer.ok, answer.text
    return base


def get(url: str, fields: str, **query: str) -> Any:
    answer = requests.get(url, params={"fields": fields, **query}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("fields", "answered"),
    [
        ("displayName", {"displayName": "churn"}),
        ("display_name", {"displayName": "churn"}),
        ("displayName,versionId", {"displayName": "churn", "versionId": "1"}),
        (" displayName , versionId ", {"displayName": "churn", "versionId": "1"}),
        ("displayName,displayName", {"displayName": "churn"}),
        ("versionDescription", {}),
        ("labels", {"labels": {"team": "growth", "tier": "1"}}),
        ("labels/team", {"labels": {"team": "growth"}}),
        ("labels.team", {"labels": {"team": "growth"}}),
        ("labels(team)", {"labels": {"team": "growth"}}),
        ("labels/*", {"labels": {"team": "growth", "tier": "1"}}),
        ("labels/`team`", {"labels": {"team": "growth"}}),
        ("labels/none", {}),
        ("containerSpec/imageUri", {"containerSpec": {"imageUri": "example.com/serve:1"}}),
        ("containerSpec(imageUri,env/name)", {
            "containerSpec": {"imageUri": "example.com/serve:1", "env": [{"name": "A"}, {"name": "B"}]},
        }),
        ("containerSpec.env(value),containerSpec.predictRoute", {
            "containerSpec": {"predictRoute": "/p", "env": [{"value": "1"}, {"value": "2"}]},
        }),
        ("containerSpec/env,containerSpec/env/name", {
            "containerSpec": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        }),
        ("containerSpec/*/name", {"containerSpec": {"env": [{"name": "A"}, {"name": "B"}]}}),
        ("*/imageUri", {"containerSpec": {"imageUri": "example.com/serve:1"}, "metadata": {}}),
        ("versionAliases", {"versionAliases": ["gold", "default"]}),
        ("metadata/auc", {"metadata": {"auc": 0.9}}),
        ("metadata/inner/b/c", {"metadata": {"inner": {"b": [{"c": 2}, 4]}}}),
        ("metadata/inner(a)", {"metadata": {"inner": {"a": 1}}}),
    ],
)  # fmt: skip
def test_a_response_has_the_requested_fields(models: str, fields: str, answered: dict[str, Any]) -> None:
    """Fields have their JSON or proto names, nested in each notation, through lists, maps and any JSON."""
    assert get(f"{models}/one", fields) == answered


@pytest.mark.parametrize("fields", ["", " ", "*", "*,displayName", "displayName,*"])
def test_everything_can_be_requested(models: str, fields: str) -> None:
    whole = requests.get(f"{models}/one", timeout=60).json()

    assert get(f"{models}/one", fields) == whole


@pytest.mark.parametrize("fields", ["models(name,displayName)", "models/name,models/displayName"])
def test_a_list_has_the_requested_fields(models: str, parent: str, fields: str) -> None:
    """The selection applies to each entry, and the next page's token is a field like any other."""
    entries = [{"name": f"{parent}/models/{name}", "displayName": "churn"} for name in ("two", "one")]

    assert get(models, fields) == {"models": entries}
    page = get(models, f"{fields},nextPageToken", pageSize="1")
    assert page.pop("nextPageToken")
    assert page == {"models": entries[:1]}
    assert get(models, "models/versionDescription") == {"models": [{}, {}]}
    assert get(models, "models(*)") == requests.get(models, timeout=60).json()
    # Together with a read mask, what both ask for is answered.
    assert get(models, fields, readMask="displayName,labels")["models"] == [{"displayName": "churn"}] * 2


@pytest.mark.parametrize("api", ["v1", "v1beta1", "ui"])
def test_an_operation_has_the_requested_fields(models: str, emulator: Emulator, api: str) -> None:
    """The selection also applies to what's packed in an operation, next to its type."""
    began = "v1" if api == "ui" else api
    base = models.replace("/v1/", f"/{began}/")
    operation = requests.post(f"{base}:upload?fields=name,done", json={"model": MODEL}, timeout=60).json()
    assert set(operation) == {"name", "done"}
    name = operation["name"]

    answer = get(f"{emulator.rest}/{api}/{name}", "response/model,metadata(genericMetadata/createTime)")

    assert set(answer) == {"response", "metadata"}
    assert set(answer["response"]) == {"@type", "model"}
    assert answer["response"]["@type"].startswith(f"type.googleapis.com/google.cloud.aiplatform.{began}.")
    assert set(answer["metadata"]["genericMetadata"]) == {"createTime"}
    assert set(get(f"{emulator.rest}/{api}/{name}", "response/nonsense")["response"]) == {"@type"}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("nonsense", "nonsense"),
        ("displayName,nonsense", "nonsense"),
        ("containerSpec/nonsense", "containerSpec.nonsense"),
        ("containerSpec(imageUri,env(nonsense))", "containerSpec.env.nonsense"),
        ("displayName/x/y", "displayName.x.y"),
        ("nonsense/x", "nonsense.x"),
        ("versionAliases.0", "versionAliases.0"),
        ("labels/team/x", "labels.team.x"),
        ("containerSpec/*/nonsense", "containerSpec.*.nonsense"),
        ("models/name", "models.name"),
    ],
)
def test_a_field_that_does_not_exist_is_refused(models: str, fields: str, path: str) -> None:
    """The error has the message of Google's front end."""
    answer = requests.get(f"{models}/one", params={"$fields": fields}, timeout=60)

    error = answer.json()["error"]
    assert (answer.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["message"] == "Request contains an invalid argument."
    assert error["details"][0]["fieldViolations"] == [
        {
            "field": path,
            "description": f"Error expanding 'fields' parameter. Cannot find matching fields for path '{path}'.",
        }
    ]


@pytest.mark.parametrize(
    "fields",
    [
        ",",
        "name,",
        ",name",
        "(name)",
        "labels(",
        "labels(team",
        "labels()",
        "labels)",
        "labels(team)/x",
        "/name",
        "labels/",
        "labels//team",
        "labels..team",
        "display Name",
        "labels/`team",
        "metadata" + "/a" * MAXIMUM_DEPTH,
        "metadata" + "(a" * MAXIMUM_DEPTH + ")" * MAXIMUM_DEPTH,
        "name," * MAXIMUM_LENGTH + "name",
    ],
)
def test_an_invalid_selection_is_refused(models: str, emulator: Emulator, fields: str) -> None:
    """An invalid selection is refused before the request takes effect."""
    headers = {"X-HTTP-Method-Override": "DELETE", "Content-Type": "application/x-www-form-urlencoded"}

    answer = requests.post(f"{models}/one", data={"fields": fields}, headers=headers, timeout=60)

    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert "Error parsing 'fields' parameter." in answer.text
    assert requests.get(f"{models}/one", timeout=60).ok
    assert "DeleteModel" not in [request.rpc for request in emulator.requests()]


def test_a_header_can_request_fields_too(models: str) -> None:
    """The parameter wins over the header. If one is sent twice, both values must be equal."""

    def fields(query: str, header: str) -> set[str]:
        answer = requests.get(f"{models}/one?{query}", headers={"X-Goog-FieldMask": header}, timeout=60)
        assert answer.ok, answer.text
        return set(answer.json())

    assert fields("", "displayName,labels.team") == {"displayName", "labels"}
    assert fields("", "") > {"displayName", "labels"}
    assert fields("fields=name", "displayName") == {"name"}
    assert fields("fields=name&$fields=name", "nonsense") == {"name"}
    assert fields("%24fields=name&$alt=json;enum-encoding=int", "") == {"name"}
    twice = requests.get(f"{models}/one?fields=name&$fields=labels", timeout=60)
    assert twice.status_code == 400


def test_errors_are_answered_whole(models: str) -> None:
    answer = requests.get(f"{models}/none?fields=name", timeout=60)

    assert set(answer.json()["error"]) == {"code", "message", "status"}


def test_grpc_requests_fields_in_its_metadata(models: str, emulator: Emulator, connect: Connect, parent: str) -> None:
    """Over gRPC, Google's parameters are metadata. Lists, messages and operations are selected alike."""
    assert models
    client = connect(emulator)

    def mask(text: str) -> dict[str, Any]:
        return {"metadata": [("x-goog-fieldmask", text)]}

    model = client.get_model(name=f"{parent}/models/one", **mask("displayName,labels.team"))
    assert model == types.Model(display_name="churn", labels={"team": "growth"})
    listed = list(client.list_models(parent=parent, **mask("models.name")))
    assert listed == [types.Model(name=f"{parent}/models/{name}") for name in ("two", "one")]
    with pytest.raises(exceptions.InvalidArgument, match="Request contains an invalid argument") as caught:
        client.delete_model(name=f"{parent}/models/one", **mask("nonsense"))
    assert caught.value.details[0].field_violations[0].field == "nonsense"
    assert client.get_model(name=f"{parent}/models/one").display_name == "churn"
    begun = client.delete_model(name=f"{parent}/models/one", **mask("done")).operation
    assert (begun.done, begun.name) == (True, "")


def test_a_header_that_comes_twice_is_recorded_whole(emulator: Emulator, parent: str) -> None:
    """A client and its credentials may both send a header, over either transport."""
    name = types.GetModelRequest(name=f"{parent}/models/one")
    with grpc.insecure_channel(str(emulator.grpc)) as channel:
        stub: Any = channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/GetModel")
        with pytest.raises(grpc.RpcError):
            stub(
                types.GetModelRequest.serialize(name),
                metadata=[("x-goog-api-client", "a/1"), ("x-goog-api-client", "b/2")],
            )
    host = str(emulator.rest).removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest("GET", f"/v1/{parent}/models/one")
    connection.putheader("X-Goog-Api-Client", "a/1")
    connection.putheader("X-Goog-Api-Client", "b/2")
    connection.endheaders()
    assert connection.getresponse().status == 404
    connection.close()

    assert [request.metadata["x-goog-api-client"] for request in emulator.requests()] == ["a/1, b/2"] * 2


def test_the_other_version_has_fields_of_its_own(models: str, emulator: Emulator, parent: str) -> None:
    beta = models.replace("/v1/", "/v1beta1/")

    assert get(f"{beta}/one", "displayName,explanationSpec/parameters/examples/gcsSource") == {"displayName": "churn"}
    assert requests.get(f"{beta}/one?fields=pipelineJob", timeout=60).status_code == 400
    with grpc.insecure_channel(str(emulator.grpc)) as channel:
        name = types.GetModelRequest(name=f"{parent}/models/one")
        stub: Any = channel.unary_unary("/google.cloud.aiplatform.v1beta1.ModelService/GetModel")
        answer = stub(types.GetModelRequest.serialize(name), metadata=[("x-goog-fieldmask", "display_name")])
    assert types.Model.deserialize(answer) == types.Model(display_name="churn")


def test_wildcards_cost_little() -> None:
    """Selections with many or deep wildcards are fast, because each expands at most to the message's type."""
    descriptor = types.ListModelsResponse.pb().DESCRIPTOR
    deep = "*(" * (MAXIMUM_DEPTH - 2) + "*" + ")" * (MAXIMUM_DEPTH - 2)
    for text in (deep, ",".join(["models/*/*/*/*"] * 1000), ",".join(["models(*(*(*(nonsense,*))))"] * 500)):
        try:
            parse_selection(text, descriptor)
        except Failure:
            continue
