"""Register a version, and find it again."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from google.cloud.aiplatform_v1.types import Model, UploadModelRequest
from google.protobuf.field_mask_pb2 import FieldMask

from vertex_registry import (
    AmbiguousNameError,
    ConflictError,
    NotFoundError,
    ServingContainer,
    Stage,
)

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, NewSource, WaitForLists
    from vertex_registry import (
        RegistryClient,
    )

pytestmark = pytest.mark.switches_together


def test_versions_count_up(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Registering under one name creates one model, and one more version each time."""
    churn = name()
    versions = [registry.register_version(churn, source()) for _ in range(3)]

    assert [version.version for version in versions] == ["1", "2", "3"]
    assert len({version.model_resource_name for version in versions}) == 1


@pytest.mark.each_switch("labels-at-upload")
def test_record(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A version has everything that you registered it with, when it's returned and when it's read."""
    churn, artifact = name(), source()
    metadata = {"accuracy": 0.93, "git_sha": "9f2c1e7", "Owner": "Ann"}
    made = registry.register_version(
        churn,
        artifact,
        version_name="Release Candidate 1",
        description="a first try",
        metadata=metadata,
        stage="staging",
        aliases=["candidate"],
        model_description="who leaves",
    )

    assert made == registry.get_version(churn, 1)
    assert (made.name, made.version, made.version_name) == (churn, "1", "Release Candidate 1")
    assert made.stage is Stage.STAGING
    assert set(made.aliases) == {"candidate", "default"}
    assert made.description == "a first try"
    assert made.metadata == metadata
    assert made.artifact_uri == artifact
    assert registry.get_model(churn).description == "who leaves"


def test_the_defaults_of_a_version(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A first version is the default one, and has ``managed_by``, a resource name and times in UTC."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    made = registry.register_version(name(), source())

    assert made.is_default
    assert made.managed_by == "zenml"
    assert made.resource_name == f"{made.model_resource_name}@1"
    assert before < made.created_at <= made.updated_at
    assert made.created_at.utcoffset() == dt.timedelta(0)


@pytest.mark.no_switches
def test_default_container(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Without a container, the newest scikit-learn image near the location serves the version."""
    version = registry.register_version(name(), source())

    assert version.container is not None
    assert version.container.image == "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"


@pytest.mark.no_switches
@pytest.mark.emulator_only("Vertex looks for the image, and there is none of that name")
def test_own_container(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Your own container comes back as you passed it."""
    container = ServingContainer(
        "us-docker.pkg.dev/acme/serving/churn:7",
        command=["python"],
        args=["serve.py", "--fast"],
        env={"MODE": "fast"},
        ports=[8080],
        predict_route="/predict",
        health_route="/health",
        shared_memory_mb=64,
        deployment_timeout=900,
    )

    assert registry.register_version(name(), source(), container=container).container == container


@pytest.mark.no_switches
@pytest.mark.emulator_only("Vertex looks for the image, and there is none of that name")
def test_default_image_of_the_client(connect: Connect, name: NewName, source: NewSource) -> None:
    """The client's default image serves the versions that name no other."""
    registry = connect(default_image="us-docker.pkg.dev/acme/serving/churn:7")
    container = registry.register_version(name(), source()).container

    assert container == ServingContainer("us-docker.pkg.dev/acme/serving/churn:7")


@pytest.mark.cassette
def test_make_default(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A new version becomes the default one unless you pass make_default=False. A first version always is."""
    churn = name()
    assert registry.register_version(churn, source(), make_default=False).is_default
    assert registry.register_version(churn, source()).is_default
    assert not registry.register_version(churn, source(), make_default=False).is_default
    assert registry.get_version(churn).version == "2"
    assert registry.get_model(churn).default_version == "2"


def test_reading_by_alias_and_number(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A version is found by its number, as text or int, and by an alias."""
    churn = name()
    registry.register_version(churn, source(), aliases=["first"])
    registry.register_version(churn, source())

    assert [registry.get_version(churn, ref).version for ref in (1, "1", "first", "default")] == ["1", "1", "1", "2"]


def test_version_names(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A version's own name is kept exactly and finds it. If two versions have it, it finds the newest."""
    churn = name()
    names = ["7", "1.2.0", "Release Candidate 1", "release candidate 1", "версия Ω 😀", 'a"b\\c']
    for text in names:
        registry.register_version(churn, source(), version_name=text)
    again = registry.register_version(churn, source(), version_name="7")

    found = [registry.get_version(churn, version_name=text) for text in names]
    assert [version.version_name for version in found] == names
    assert [version.version for version in found] == [again.version, "2", "3", "4", "5", "6"]


def test_version_name_of_an_older_version(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """If the newest of several versions with one name is deleted, the name finds the one before."""
    churn = name()
    registry.register_version(churn, source(), version_name="7")
    registry.register_version(churn, source(), version_name="7")
    registry.register_version(churn, source())
    registry.delete_version(churn, 2)
    wait_for_lists()

    assert registry.get_version(churn, version_name="7").version == "1"
    with pytest.raises(NotFoundError, match="no version named '8'"):
        registry.get_version(churn, version_name="8")


@pytest.mark.switches_together
def test_hidden_aliases_are_not_shown(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """The hidden aliases of request IDs and version names aren't among the version's aliases."""
    version = registry.register_version(name(), source(), version_name="1.2.0", request_id="run-1", make_default=False)

    assert version.aliases == ("default",)
    assert version.metadata == {}


@pytest.mark.switches_together
@pytest.mark.parametrize(
    "text",
    ['"quoted"', "back\\slash", "смешанный 名前 😀", "ends with \\", "a AND b = 'c'", "x" * 90, "%40@"],
)
def test_names_in_any_script(registry: RegistryClient, name: NewName, source: NewSource, text: str) -> None:
    """A name in any script is found exactly, and one that differs in a letter is another model."""
    first, other = name(text), name(text.upper() + "!")
    made = registry.register_version(first, source())
    registry.register_version(other, source())

    assert registry.register_version(first, source()).model_resource_name == made.model_resource_name
    assert registry.get_version(first, 1).name == first
    assert registry.get_version(other).version == "1"


def test_a_fresh_client_finds_it(registry: RegistryClient, connect: Connect, name: NewName, source: NewSource) -> None:
    """A new version is visible to another client at once, even if lists lag."""
    churn = name()
    registry.register_version(churn, source())

    assert connect().get_version(churn).version == "1"
    assert connect().register_version(churn, source()).version == "2"


@pytest.mark.cassette
def test_request_id(registry: RegistryClient, connect: Connect, name: NewName, source: NewSource) -> None:
    """The same request ID returns its version, from any client. With another source, it's a conflict."""
    churn, artifact = name(), source()
    made = registry.register_version(churn, artifact, request_id="run 7, step Ω", metadata={"a": 1})

    assert connect().register_version(churn, artifact, request_id="run 7, step Ω", metadata={"a": 2}) == made
    with pytest.raises(ConflictError, match="another source"):
        connect().register_version(churn, source(), request_id="run 7, step Ω")
    assert connect().register_version(churn, artifact, request_id="run 8").version == "2"


def test_the_limits_of_a_request_id(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A request ID ends with its version, and is another request under another name."""
    churn, artifact = name(), source()
    registry.register_version(churn, source())
    registry.register_version(churn, artifact, request_id="run")
    assert registry.register_version(name(), artifact, request_id="run").version == "1"

    registry.delete_version(churn, 2)
    assert registry.register_version(churn, artifact, request_id="run").version == "3"


@pytest.mark.emulator_only("Vertex looks for the image, and there is none of that name")
def test_a_model_of_another_tool_is_used(
    registry: RegistryClient,
    vertex: ModelServiceClient,
    parent: str,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """An existing model of another tool gets the next version."""
    churn = name()
    upload(vertex, parent, churn, source())
    wait_for_lists()

    assert registry.register_version(churn, source()).version == "2"
    assert registry.get_version(churn, 1).stage is Stage.NONE


@pytest.mark.emulator_only("Vertex looks for the image, and there is none of that name")
def test_an_ambiguous_name(
    registry: RegistryClient,
    vertex: ModelServiceClient,
    parent: str,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """The error lists the models, and each one is found by its full resource name."""
    churn = name()
    models = {upload(vertex, parent, churn, source()) for _ in range(2)}
    wait_for_lists()

    for verb in (registry.get_version, registry.get_model, registry.delete_model):
        with pytest.raises(AmbiguousNameError) as caught:
            verb(churn)
        assert set(caught.value.candidates) == models
    with pytest.raises(AmbiguousNameError):
        registry.register_version(churn, source())
    assert set(registry.duplicates()[churn]) == models
    one = min(models)
    assert registry.register_version(one, source()).resource_name == f"{one}@2"
    assert registry.get_version(one).name == churn


@pytest.mark.each_switch("id-taken")
def test_a_name_whose_id_belongs_to_a_renamed_model(
    registry: RegistryClient,
    connect: Connect,
    vertex: ModelServiceClient,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """After a model is renamed, its old name can be registered again."""
    old, new = name(), name()
    renamed = registry.register_version(old, source())
    vertex.update_model(
        model=Model(name=renamed.model_resource_name, display_name=new), update_mask=FieldMask(paths=["display_name"])
    )
    wait_for_lists()

    made = connect().register_version(old, source())
    assert (made.name, made.version) == (old, "1")
    assert made.model_resource_name != renamed.model_resource_name
    assert connect().get_version(old).model_resource_name == made.model_resource_name
    assert connect().get_version(new).model_resource_name == renamed.model_resource_name


@pytest.mark.each_switch("id-taken")
def test_a_model_that_was_deleted_and_registered_again(
    registry: RegistryClient,
    connect: Connect,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """A client notices that a model it remembers is deleted, and registers the name again."""
    churn = name()
    registry.register_version(churn, source())
    connect().delete_model(churn)
    wait_for_lists()

    with pytest.raises(NotFoundError):
        registry.get_version(churn)
    assert registry.register_version(churn, source()).version == "1"


@pytest.mark.each_switch("id-taken")
def test_a_name_that_another_model_has_now(
    registry: RegistryClient,
    vertex: ModelServiceClient,
    parent: str,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """A client that remembers a deleted model finds the one that has its name now."""
    churn = name()
    old = registry.register_version(churn, source())
    vertex.delete_model(name=old.model_resource_name).result()  # type: ignore[no-untyped-call]  # untyped upstream
    new = upload(vertex, parent, churn, source())
    wait_for_lists()

    assert registry.get_version(churn).model_resource_name == new


@pytest.mark.no_switches
def test_managed_by(connect: Connect, name: NewName, source: NewSource) -> None:
    """The label managed_by has the value of the client's setting."""
    assert connect(managed_by="acme-ml").register_version(name(), source()).managed_by == "acme-ml"


def upload(vertex: ModelServiceClient, parent: str, name: str, source: str, **fields: object) -> str:
    """Upload a model with Google's own client, and return its resource name."""
    model = Model(
        display_name=name,
        artifact_uri=source,
        container_spec={"image_uri": "us-docker.pkg.dev/acme/serving/any:1"},
        **fields,
    )
    operation = vertex.upload_model(UploadModelRequest(parent=parent, model=model))
    return str(operation.result().model)  # type: ignore[no-untyped-call]  # untyped upstream
