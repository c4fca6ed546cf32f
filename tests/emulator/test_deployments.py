"""Versions that are marked as deployed, which nobody can delete."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import requests
from google.api_core.exceptions import FailedPrecondition, NotFound
from google.cloud.aiplatform_v1 import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.types import Model, ModelContainerSpec

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARENT = "projects/4711/locations/us-central1"
ENDPOINT = f"{PARENT}/endpoints/churn"

#: Google's client, whose operations have no types.
Client = Any


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with grpc.insecure_channel(emulator.grpc) as channel:
        yield ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))


@pytest.fixture
def model(client: Client) -> str:
    """Upload two versions, and return the name of their model."""
    return upload(client, 2)


def upload(client: Client, count: int = 1) -> str:
    """Upload versions of a new model, and return its name."""
    model = Model(display_name="churn", container_spec=ModelContainerSpec(image_uri="us-docker.pkg.dev/a/b/c:1"))
    request: dict[str, Any] = {"parent": PARENT, "model": model}
    name: str = client.upload_model(request=request | {"model_id": "churn"}).result().model
    for _ in range(1, count):
        client.upload_model(request=request | {"parent_model": name}).result()
    return name


def deletions(client: Client, model: str) -> tuple[Callable[[], Any], ...]:
    """Return what deletes the deployed version, and its model."""
    return (lambda: client.delete_model_version(name=f"{model}@2"), lambda: client.delete_model(name=model))


def test_what_is_deployed_is_shown_and_not_deleted(emulator: Emulator, client: Client, model: str) -> None:
    """A deployed version shows its endpoints, and refuses to be deleted; so does its model."""
    before = client.get_model(name=f"{model}@2")
    assert emulator.deploy(f"{model}@2", ENDPOINT) == (ENDPOINT,)
    assert emulator.deploy(f"{model}@2", ENDPOINT) == (ENDPOINT,)
    shown = client.get_model(name=f"{model}@2")
    assert [deployed.endpoint for deployed in shown.deployed_models] == [ENDPOINT]
    assert shown.deployed_models[0].deployed_model_id
    assert shown.etag != before.etag
    assert [len(one.deployed_models) for one in client.list_model_versions(name=model)] == [0, 1]
    for delete in deletions(client, model):
        with pytest.raises(FailedPrecondition, match=rf"@2 is deployed to {ENDPOINT} and cannot be deleted"):
            delete()

    other = emulator.deploy(f"{model}@2")[-1]
    assert other.startswith(f"{PARENT}/endpoints/")
    assert emulator.undeploy(f"{model}@2", ENDPOINT) == (other,)
    assert emulator.undeploy(f"{model}@2") == ()
    client.delete_model_version(name=f"{model}@2").result()
    client.delete_model(name=model).result()
    with pytest.raises(NotFound):
        client.get_model(name=model)


def test_what_is_deployed_while_its_deletion_runs() -> None:
    """An operation that deletes fails if the version is deployed before it's done."""
    with Emulator(polls_until_done=1) as emulator, grpc.insecure_channel(emulator.grpc) as channel:
        slow: Client = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
        model = upload(slow, 2)
        for delete in deletions(slow, model):
            operation = delete()
            emulator.deploy(f"{model}@2")
            with pytest.raises(FailedPrecondition, match="is deployed to"):
                operation.result()
            emulator.undeploy(f"{model}@2")


def test_deployments_are_kept_and_not_copied(tmp_path: Path) -> None:
    """A data file keeps them. A copy of the version isn't deployed."""
    for first in (True, False):
        with Emulator(tmp_path / "registry.db") as emulator, grpc.insecure_channel(emulator.grpc) as channel:
            client: Client = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
            if first:
                emulator.deploy(f"{upload(client)}@default")
                request = {"parent": PARENT, "model_id": "copy", "source_model": f"{PARENT}/models/churn"}
                client.copy_model(request=request).result()
            assert client.get_model(name=f"{PARENT}/models/churn").deployed_models
            assert not client.get_model(name=f"{PARENT}/models/copy").deployed_models


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("", ""),
        ("churn", ""),
        (f"{PARENT}/models/nobody", ""),
        (f"{PARENT}/models/churn@9", ""),
        (f"{PARENT}/models/churn@1", "churn"),
        (f"{PARENT}/models/churn@1", f"{PARENT}/models/churn"),
        (5, ""),
        (f"{PARENT}/models/churn@1", None),
    ],
)
def test_what_cannot_be_deployed_is_refused(emulator: Emulator, model: str, name: Any, endpoint: Any) -> None:
    """An invalid name is an error, in Python and over HTTP, and so is undeploying a version that isn't deployed."""
    for change, path in ((emulator.deploy, "deploy"), (emulator.undeploy, "undeploy")):
        with pytest.raises(ValueError, match=r"."):
            change(name, endpoint)
        body = {"model": name, "endpoint": endpoint}
        answer = requests.post(f"{emulator.rest}/emulator/{path}", json=body, timeout=10)
        assert answer.status_code in {400, 404}
        assert answer.json()["error"]["message"]
    with pytest.raises(ValueError, match="not deployed"):
        emulator.undeploy(f"{model}@1")


@pytest.mark.parametrize("name", ["churn", "", f"{PARENT}/models/churn@1/x"])
def test_a_malformed_name_is_explained(emulator: Emulator, model: str, name: str) -> None:
    """The error shows the expected form of names. A closed emulator says that it's closed."""
    with pytest.raises(ValueError, match=r"isn't the resource name of a version.*ModelVersion\.resource_name"):
        emulator.deploy(name)
    emulator.close()
    with pytest.raises(ValueError, match="The emulator is closed"):
        emulator.deploy(f"{model}@1")


def test_other_processes_deploy_too(emulator: Emulator, client: Client, model: str) -> None:
    """Two paths of the REST port have the same effect as the methods."""

    def post(path: str, body: Any) -> requests.Response:
        return requests.post(f"{emulator.rest}/emulator/{path}", json=body, timeout=10)

    (endpoint,) = post("deploy", {"model": f"{model}@1"}).json()["endpoints"]
    assert client.get_model(name=f"{model}@1").deployed_models[0].endpoint == endpoint
    assert post("deploy", {"model": f"{model}@1", "endpoint": ENDPOINT}).json() == {"endpoints": [endpoint, ENDPOINT]}
    assert post("undeploy", {"model": f"{model}@1", "endpoint": endpoint}).json() == {"endpoints": [ENDPOINT]}
    assert post("undeploy", {"model": f"{model}@1"}).json() == {"endpoints": []}
    wrong: Any
    for wrong in ([], {}, "x", {"model": f"{model}@1", "more": ""}, {"model": ["x"]}):
        answer = post("deploy", wrong)
        assert answer.status_code == 400
        assert "This isn't a deployment" in answer.json()["error"]["message"]


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_emulator_cannot_be_pickled(emulator: Emulator, way: Any) -> None:
    """The error says how to do it from another process."""
    with pytest.raises(TypeError, match="Give the other process its address"):
        way(emulator)
