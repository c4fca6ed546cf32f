"""Defects of the adapter that was proposed to ZenML. Each of the 21 tests shows that this adapter doesn't have one."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1 as vertex_api
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport
from zenml.client import Client
from zenml.model_registries.base_model_registry import ModelRegistryModelMetadata, ModelVersionStage

from tests.behaviour.incompressible import incompressible
from vertex_registry import RegistryClient
from vertex_registry import Stage as VertexStage
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.adapter.command_line import ZenML
    from vertex_registry.zenml import VertexModelRegistry

PARENT = "projects/local-project/locations/us-central1"


@pytest.fixture
def vertex(emulator: Emulator) -> Iterator[RegistryClient]:
    """Return a client of this package for the same registry."""
    del emulator
    with RegistryClient() as client:
        yield client


@pytest.fixture
def google(emulator: Emulator) -> Iterator[vertex_api.ModelServiceClient]:
    """Return Google's own client for the same registry."""
    transport = ModelServiceRestTransport(
        host=str(emulator.rest).removeprefix("http://"),
        url_scheme="http",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]  # untyped upstream
    )
    with vertex_api.ModelServiceClient(transport=transport) as client:
        yield client


def upload(google: vertex_api.ModelServiceClient, name: str) -> str:
    """Upload a model with Google's client, and return its resource name."""
    model = vertex_api.Model(
        display_name=name,
        artifact_uri="gs://elsewhere/model",
        container_spec={"image_uri": "europe-docker.pkg.dev/acme/own/server:1"},
    )
    operation: Any = google.upload_model(parent=PARENT, model=model)
    return str(operation.result().model)


def versions(registry: VertexModelRegistry, **conditions: Any) -> list[str]:
    """Return the versions that a list shows."""
    return [version.version for version in registry.list_model_versions(**conditions)]


def test_01_credentials_reach_every_call(
    zenml: ZenML, emulator: Emulator, key: Path, active: Callable[[], VertexModelRegistry]
) -> None:
    """Every request has the service connector's token and names its project."""
    zenml(
        "service-connector register every_call --type gcp --auth-method=service-account --project_id=acme "
        f"--service_account_json=@{key} --resource-type gcp-generic"
    )
    name = zenml.use(location="us-central1")
    zenml(f"model-registry connect {name} --connector every_call")
    registry = active()
    registry.register_model_version("churn", "1", "gs://models/churn/1")
    registry.register_model_version("churn", "2", "gs://models/churn/2")
    registry.get_model("churn")
    registry.update_model_version("churn", "1", description="first")
    versions(registry, name="churn")
    registry.delete_model_version("churn", "1")

    requests = emulator.requests()
    assert {"UploadModel", "UpdateModel", "GetModel", "ListModelVersions", "DeleteModelVersion"} <= {
        request.rpc for request in requests
    }
    assert all(request.metadata["authorization"].startswith("Bearer sha256:") for request in requests)
    assert all("projects/acme/" in str(request.message) for request in requests if request.rpc != "GetOperation")


def test_02_a_model_is_found(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """A model that exists is shown. One that doesn't is a KeyError and one line."""
    registry.register_model_version("churn", "1", "gs://models/churn/1")

    assert registry.get_model("churn").name == "churn"
    assert "churn" in zenml("model-registry models get churn")
    with pytest.raises(KeyError, match="There is no model 'nobody'"):
        registry.get_model("nobody")
    assert zenml.try_("model-registry models get nobody").line == "Error: Model with name nobody does not exist."


def test_03_listed_versions_are_whole(registry: VertexModelRegistry) -> None:
    """A version in a list is equal to the version that you get by name."""
    registry.register_model_version("churn", "1", "gs://models/churn/1", "first", {"team": "growth"})

    assert registry.list_model_versions("churn") == [registry.get_model_version("churn", "1")]


def test_04_every_condition_of_a_list_counts(registry: VertexModelRegistry) -> None:
    """Stage, source, metadata and order do what they say, and the count comes after all of them."""
    for number in range(1, 5):
        metadata = {"owner": 'O"Brien & co', "even": number % 2 == 0, "accuracy": number / 10}
        registry.register_model_version("churn", f"v{number}", f"gs://models/churn/{number}", metadata=metadata)
    registry.update_model_version("churn", "v2", stage=ModelVersionStage.STAGING)

    assert versions(registry, name="churn", metadata=ModelRegistryModelMetadata()) == ["v4", "v3", "v2", "v1"]
    assert versions(registry, name="churn", order_by_date="asc") == ["v1", "v2", "v3", "v4"]
    assert versions(registry, name="churn", stage=ModelVersionStage.STAGING) == ["v2"]
    assert versions(registry, name="churn", stage=ModelVersionStage.NONE) == ["v4", "v3", "v1"]
    assert versions(registry, name="churn", model_source_uri="gs://models/churn/3/") == ["v3"]
    assert versions(registry, name="churn", metadata={"owner": 'O"Brien & co', "even": True}, count=1) == ["v4"]
    assert versions(registry, name="churn", metadata={"accuracy": "0.3"}) == ["v3"]
    assert versions(registry, name="churn", metadata={"accuracy": "0.9"}) == []


def test_05_the_version_that_was_asked_for(registry: VertexModelRegistry) -> None:
    """You get the version that you named, not the default one."""
    for number in ("1", "2", "3"):
        registry.register_model_version("churn", number, f"gs://models/churn/{number}")

    assert registry.get_model_version("churn", "2").model_source_uri == "gs://models/churn/2"


def test_06_an_update_touches_that_version_alone(registry: VertexModelRegistry) -> None:
    """If two models have a version of the same name, only the one that you named changes, and you get it back."""
    for name in ("churn", "fraud"):
        for number in ("1", "2"):
            registry.register_model_version(name, number, f"gs://models/{name}/{number}", f"{name} {number}")
    before = {name: registry.list_model_versions(name) for name in ("churn", "fraud")}
    updated = registry.update_model_version("fraud", "1", description="better", metadata={"a": "1"})

    assert (updated.version, updated.description) == ("1", "better")
    assert registry.get_model_version("fraud", "1") == updated
    assert registry.list_model_versions("churn") == before["churn"]
    assert registry.get_model_version("fraud", "2") == before["fraud"][0]


def test_07_a_version_is_what_it_was_called(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """A version is listed and found by exactly the name that it was registered with."""
    names = [
        "1.0",
        "1-0",
        "1_0",
        "Release Candidate 1",
        "release candidate 1",
        "latest",
        "default",
        "vär/@ 1",
        "x" * 128,
    ]
    for number, name in enumerate(names):
        assert registry.register_model_version("churn", name, f"gs://models/churn/{number}").version == name

    assert versions(registry, name="churn") == names[::-1]
    for number, name in enumerate(names):
        assert registry.get_model_version("churn", name).model_source_uri == f"gs://models/churn/{number}"
        shown = zenml(["model-registry", "models", "get-version", "churn", "-v", name])
        assert f"gs://models/churn/{number}" in shown


def test_08_a_version_is_deleted_by_what_it_was_called(registry: VertexModelRegistry, vertex: RegistryClient) -> None:
    """The version of that name is deleted, even if it's the default one, and no other is."""
    for name in ("3", "2", "1"):
        registry.register_model_version("churn", name, f"gs://models/churn/{name}")
    assert vertex.get_version("churn").version_name == "1"
    registry.delete_model_version("churn", "1")

    assert versions(registry, name="churn") == ["2", "3"]
    assert vertex.get_version("churn").version_name == "2"
    with pytest.raises(KeyError):
        registry.delete_model_version("churn", "1")


def test_09_only_the_same_registration_is_reused(registry: VertexModelRegistry) -> None:
    """The same version with the same source is registered once. Another version of that source is another version."""
    first = registry.register_model_version("churn", "1", "gs://models/churn/1", metadata={"a": "1"})
    registry.register_model_version("churn", "2", "gs://models/churn/2")
    registry.register_model_version("churn", "3", "gs://models/churn/1", metadata={"a": "3"})

    again = registry.register_model_version("churn", "1", "gs://models/churn/1", metadata={"a": "1"})
    # It has lost its alias `default` to the others, which is a change of it.
    assert again.model_dump(exclude={"last_updated_at"}) == first.model_dump(exclude={"last_updated_at"})
    assert versions(registry, name="churn") == ["3", "2", "1"]
    assert registry.get_model_version("churn", "3").metadata == ModelRegistryModelMetadata.model_validate({"a": "3"})


def test_10_a_name_means_one_model(registry: VertexModelRegistry) -> None:
    """Versions of one name are in one model, and similar names are different models."""
    names = ["My Model", "my model", "my-model", "m" * 70 + "1", "m" * 70 + "2"]
    for version in ("1", "2"):
        for name in names:
            registry.register_model_version(name, version, f"gs://models/{version}")

    assert sorted(model.name for model in registry.list_models()) == sorted(names)
    assert all(versions(registry, name=name) == ["2", "1"] for name in names)


def test_11_names_that_are_not_unique(
    registry: VertexModelRegistry, google: vertex_api.ModelServiceClient, zenml: ZenML
) -> None:
    """If several models have one name, each is listed, none is guessed, and each is found by its full name."""
    one, two = upload(google, "twin"), upload(google, "twin")

    assert [model.name for model in registry.list_models("twin")] == ["twin", "twin"]
    with pytest.raises(RuntimeError, match="2 models have the name 'twin'") as refused:
        registry.register_model_version("twin", "1", "gs://models/twin/1")
    assert one in str(refused.value)
    assert two in str(refused.value)
    assert "2 models have the name" in zenml.try_("model-registry models get twin").line
    registry.register_model_version(two, "1", "gs://models/twin/1")
    assert [version.model_source_uri for version in registry.list_model_versions(two)] == [
        "gs://models/twin/1",
        "gs://elsewhere/model",
    ]


def test_12_metadata_comes_back_equal(registry: VertexModelRegistry, emulator: Emulator) -> None:
    """Case, length, structure and awkward keys are kept. Too much metadata is refused before anything is sent."""
    given = {
        "zenml_version": "0.98.0",
        "zenml_run_name": "Training-2026_11_24-T10:00:00",
        "zenml_pipeline_uuid": "A-B",
        "Owner": "Ann Lee",
        "owner": "bob",
        "note": "long " * 60,
        "empty": "",
        "nothing": None,
        "features": ["age", {"Plan": True}],
        "managed_by": "me",
        "stage": "mine",
        "deployer_id": "7",
        "dict": "d",
        "b c": "with a blank",
        "9lives": "1",
        "vr-request": "x",
    }
    metadata = ModelRegistryModelMetadata.model_validate(given)
    registry.register_model_version("churn", "1", "gs://models/churn/1", metadata=metadata)
    read = registry.get_model_version("churn", "1")

    assert read.metadata == metadata
    assert read.stage.value == "None"
    before = len(emulator.requests())
    with pytest.raises(RuntimeError, match="Vertex allows 64"):
        registry.register_model_version("churn", "2", "gs://models/churn/2", metadata=incompressible(70))
    assert {request.rpc for request in emulator.requests()[before:]} <= {"GetModel", "ListModelVersions", "ListModels"}


def test_13_a_stack_of_a_registry_alone(registry: VertexModelRegistry) -> None:
    """You can register with a stack that has no model deployer."""
    assert Client().active_stack.model_deployer is None
    assert registry.register_model_version("churn", "1", "gs://models/churn/1").version == "1"


@pytest.mark.parametrize("stage", ["None", "Staging", "Production", "Archived"])
def test_14_stages_are_one_to_one(
    registry: VertexModelRegistry, vertex: RegistryClient, zenml: ZenML, stage: str
) -> None:
    """Each stage is written and read as itself, in Python, on the command line and at registration."""
    assert {stage.value for stage in ModelVersionStage} == {stage.value for stage in VertexStage}
    chosen = ModelVersionStage(stage)
    for version in ("1", "2", "3"):
        registry.register_model_version("churn", version, f"gs://models/{version}")
    assert registry.update_model_version("churn", "1", stage=chosen).stage is chosen
    assert re.search(rf"STAGE +{stage}\b", zenml(f"model-registry models update-version churn -v 2 -s {stage}"))
    vertex.set_stage("churn", 3, VertexStage(stage))
    registry.register_model_version("churn", "4", "gs://models/4", stage=stage)

    for number in (1, 2, 3, 4):
        assert registry.get_model_version("churn", str(number)).stage is chosen
        assert vertex.get_version("churn", number).stage is VertexStage(stage)
        assert vertex.get_version("churn", number).labels["stage"] == stage.lower()


def test_15_a_version_has_its_own_description_and_times(
    zenml: ZenML, monkeypatch: pytest.MonkeyPatch, active: Callable[[], VertexModelRegistry]
) -> None:
    """A version has its own description and its own times, in UTC."""
    times = iter(dt.datetime(2026, 1, day, 12, tzinfo=dt.UTC) for day in range(1, 29))
    with Emulator(storage="", now=lambda: next(times)) as emulator:
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", str(emulator.grpc))
        zenml.share()
        registry = active()
        one = registry.register_model_version("churn", "1", "gs://models/churn/1", "first")
        two = registry.register_model_version("churn", "2", "gs://models/churn/2", "second")
        again = registry.update_model_version("churn", "1", description="the first")

    assert (one.description, two.description, again.description) == ("first", "second", "the first")
    assert one.created_at is not None
    assert two.created_at is not None
    assert one.created_at.tzinfo is dt.UTC
    assert one.created_at < two.created_at
    assert again.created_at == one.created_at
    assert again.last_updated_at is not None
    assert again.last_updated_at > two.created_at


def test_16_the_default_moves_where_that_is_wanted(
    zenml: ZenML, registry: VertexModelRegistry, vertex: RegistryClient, active: Callable[[], VertexModelRegistry]
) -> None:
    """A new version becomes the default one, as with Google's SDK, unless the settings or the call say otherwise."""
    registry.register_model_version("churn", "1", "gs://models/churn/1")
    registry.register_model_version("churn", "2", "gs://models/churn/2")
    assert vertex.get_version("churn").version_name == "2"
    registry.register_model_version("churn", "3", "gs://models/churn/3", make_default=False)
    assert vertex.get_version("churn").version_name == "2"
    zenml.use(make_default="false")
    active().register_model_version("churn", "4", "gs://models/churn/4")
    assert vertex.get_version("churn").version_name == "2"


def test_17_what_is_missing_is_a_key_error_with_words(registry: VertexModelRegistry) -> None:
    """Every method that takes a version says which one doesn't exist."""
    registry.register_model_version("churn", "1", "gs://models/churn/1")
    calls: list[Callable[..., Any]] = [
        registry.get_model_version,
        registry.update_model_version,
        registry.delete_model_version,
        registry.load_model_version,
    ]
    for call in calls:
        with pytest.raises(KeyError, match="'churn' has no version 'two', by name or by number"):
            call("churn", "two")
        with pytest.raises(KeyError, match="There is no model 'nobody'"):
            call("nobody", "1")


def test_18_the_image_is_near_and_new(
    zenml: ZenML,
    registry: VertexModelRegistry,
    vertex: RegistryClient,
    active: Callable[[], VertexModelRegistry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default image is scikit-learn's, from the nearest host. Settings and calls can name another."""
    registry.register_model_version("churn", "1", "gs://models/churn/1")
    assert _image(vertex, "1") == "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
    registry.register_model_version("churn", "2", "gs://models/churn/2", container="europe-docker.pkg.dev/acme/own:1")
    assert _image(vertex, "2") == "europe-docker.pkg.dev/acme/own:1"
    zenml.use(location="asia-east1", serving_image="xgboost:2.1")
    active().register_model_version("churn", "1", "gs://models/churn/1")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "asia-east1")
    with RegistryClient() as asia:
        assert _image(asia, "1") == "asia-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest"
        assert not any("sklearn" in value for value in asia.get_version("churn").labels.values())


def _image(client: RegistryClient, name: str) -> str:
    container = client.get_version("churn", version_name=name).container
    assert container is not None
    return container.image


def test_19_no_setting_and_no_argument_is_ignored(
    zenml: ZenML, registry: VertexModelRegistry, vertex: RegistryClient, active: Callable[[], VertexModelRegistry]
) -> None:
    """Other arguments are the client's, unknown ones are a TypeError, and two different projects are refused."""
    registry.register_model_version(
        "churn", "1", "gs://models/churn/1", stage="Staging", aliases=["candidate"], model_description="who leaves"
    )

    assert vertex.get_version("churn", "candidate").stage is VertexStage.STAGING
    assert registry.get_model("churn").description == "who leaves"
    with pytest.raises(TypeError, match="config"):
        registry.register_model_version("churn", "2", "gs://models/churn/2", config=object())
    zenml.use(project="acme", project_id="other")
    with pytest.raises(RuntimeError, match="two names for one setting"):
        active().list_models()


def test_20_resource_names_are_vertexs(registry: VertexModelRegistry, emulator: Emulator) -> None:
    """Every version is requested as ``MODEL@VERSION``, which is how Vertex names it."""
    registry.register_model_version("churn", "1", "gs://models/churn/1")
    registry.update_model_version("churn", "1", description="first")
    registry.get_model_version("churn", "1")
    named = re.compile(r"projects/[^/]+/locations/[^/]+/models/[a-z0-9_-]+(@[A-Za-z0-9-]+)?")
    asked = [
        getattr(request.message, "name", "") or request.message.model.name
        for request in emulator.requests()
        if request.rpc in {"GetModel", "UpdateModel", "ListModelVersions"}
    ]

    assert any("@" in name for name in asked)
    assert all(named.fullmatch(name) for name in asked)


def test_21_an_upload_that_takes_long(
    zenml: ZenML, monkeypatch: pytest.MonkeyPatch, active: Callable[[], VertexModelRegistry]
) -> None:
    """An upload that takes too long is an error that says so, and trying again returns the one version."""
    with Emulator(storage="", polls_until_done=40) as emulator:
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", str(emulator.grpc))
        zenml.use(operation_timeout="0.3")
        registry = active()
        tries = 0
        while True:
            try:
                version = registry.register_model_version("churn", "1", "gs://models/churn/1")
                break
            except RuntimeError as error:
                assert "is still running after 0.3 s" in str(error) or "taken by an upload" in str(error)
                tries += 1
        assert tries > 0
        assert version.version == "1"
        assert len([request for request in emulator.requests() if request.rpc == "UploadModel"]) >= 1
        assert versions(registry, name="churn") == ["1"]
