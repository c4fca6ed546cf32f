"""List and change versions, their metadata and their aliases."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from tests.behaviour.incompressible import incompressible
from vertex_registry import ConflictError, InvalidArgumentError, NotFoundError, Stage

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import NewName, NewSource, WaitForLists
    from vertex_registry import ModelVersion, RegistryClient
    from vertex_registry.emulator import Emulator

pytestmark = pytest.mark.switches_together


@pytest.fixture
def model(registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists) -> str:
    """Register a model with twelve versions, every third in Staging, and return its name."""
    model = name()
    for number in range(1, 13):
        stage = Stage.STAGING if number % 3 == 0 else Stage.NONE
        metadata = {"team": "growth" if number % 2 else "Sales", "number": number, "even": number % 2 == 0}
        registry.register_version(model, source(), stage=stage, metadata=metadata)
    wait_for_lists()
    return model


def numbers(versions: object) -> list[int]:
    return [int(version.version) for version in versions]  # type: ignore[attr-defined]  # any iterable of versions


@pytest.mark.switches_together
def test_newest_first(registry: RegistryClient, model: str) -> None:
    """Versions are listed by number, newest first, or oldest first on request."""
    assert numbers(registry.list_versions(model)) == list(range(12, 0, -1))
    assert numbers(registry.list_versions(model, oldest_first=True)) == list(range(1, 13))


@pytest.mark.each_switch("label-filter")
def test_conditions(registry: RegistryClient, model: str) -> None:
    """Conditions combine, and the limit counts what matches."""
    middle = registry.get_version(model, 6)

    assert numbers(registry.list_versions(model, stage="staging")) == [12, 9, 6, 3]
    assert numbers(registry.list_versions(model, stage=Stage.NONE, limit=2)) == [11, 10]
    assert numbers(registry.list_versions(model, metadata={"team": "growth"}, limit=3)) == [11, 9, 7]
    assert numbers(registry.list_versions(model, metadata={"team": "Sales"}, stage="Staging")) == [12, 6]
    assert numbers(registry.list_versions(model, metadata={"number": 1})) == [1]
    assert numbers(registry.list_versions(model, metadata={"even": 1})) == []
    assert numbers(registry.list_versions(model, artifact_uri=middle.artifact_uri + "/")) == [6]
    assert numbers(registry.list_versions(model, created_after=middle.created_at)) == list(range(12, 6, -1))
    assert numbers(registry.list_versions(model, created_before=middle.created_at)) == list(range(5, 0, -1))
    assert numbers(registry.list_versions(model, limit=0)) == []


def test_listing_agrees_with_reading(registry: RegistryClient, model: str) -> None:
    """A listed version equals the version that you read."""
    assert all(version == registry.get_version(model, version.version) for version in registry.list_versions(model))


@pytest.mark.no_switches
def test_arguments_are_checked_at_the_call(registry: RegistryClient, model: str, name: NewName) -> None:
    """A wrong argument fails at the call; an unknown name fails at the first version."""
    wrongs: list[dict[str, Any]] = [{"stage": "canary"}, {"created_after": dt.datetime(2026, 1, 1)}, {"limit": -1}]  # noqa: DTZ001
    for wrong in wrongs:
        with pytest.raises(InvalidArgumentError):
            registry.list_versions(model, **wrong)
    listed = registry.list_versions(name())
    with pytest.raises(NotFoundError):
        next(listed)


@pytest.mark.switches_together
@pytest.mark.emulator_only("it asks from many threads at once, about models that are not ours")
def test_every_version_of_every_model(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Without a name, you get the versions of every model, one model after the other, the newest model first."""
    models = [name() for _ in range(4)]
    for model in models:
        registry.register_version(model, source())
    for model in models:
        registry.register_version(model, source())
    wait_for_lists()

    ours = [(v.name, v.version) for v in registry.list_versions() if v.name in models]
    assert ours == [(model, version) for model in reversed(models) for version in ("2", "1")]
    assert len(list(registry.list_versions(limit=3))) == 3


@pytest.mark.no_switches
def test_a_limit_that_is_reached(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A limit of 0 sends no request, and none follows the last wanted version."""
    for _ in range(34):
        registry.register_version(name(), source())
    before = len(emulator.requests())

    assert list(registry.list_versions(limit=0)) == []
    assert list(registry.list_models(limit=0)) == []
    assert len(emulator.requests()) == before
    assert len(list(registry.list_versions(limit=1))) == 1
    asked = Counter(request.rpc for request in emulator.requests()[before:])
    assert asked == {"ListModels": 1, "ListModelVersions": 1}


@pytest.mark.switches_together
def test_latest(registry: RegistryClient, model: str, name: NewName) -> None:
    """The latest version is the newest, or the newest in a stage, or None."""
    assert numbers([registry.latest_version(model), registry.latest_version(model, stage="Staging")]) == [12, 12]
    assert registry.latest_version(model, stage=Stage.PRODUCTION) is None
    with pytest.raises(NotFoundError, match="There is no model"):
        registry.latest_version(name())
    for verb in (registry.latest_version, registry.stage_history):
        with pytest.raises(InvalidArgumentError, match="not NoneType"):
            verb(None)  # type: ignore[arg-type]  # only lists accept None, for every model


@pytest.mark.cassette
@pytest.mark.each_switch("labels-at-upload", "label-wins")
def test_metadata_is_merged(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """An update sets its keys, removes those that it names, and keeps the rest."""
    churn = name()
    registry.register_version(churn, source(), metadata={"a": 1, "b": "two", "long": "x" * 500, "C": [1, {"d": None}]})

    changed = registry.update_version(churn, 1, metadata={"a": 2, "e": "é" * 100}, remove_metadata=["b", "nothing"])
    assert changed.metadata == {"a": 2, "e": "é" * 100, "long": "x" * 500, "C": [1, {"d": None}]}
    assert registry.update_version(churn, 1, remove_metadata=["long", "e", "C"]).metadata == {"a": 2}
    assert registry.get_version(churn, 1).metadata == {"a": 2}


def test_keys_that_the_client_uses(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Metadata can have the keys that the client itself uses, without changing its labels."""
    churn = name()
    metadata = {"stage": "canary", "managed_by": "me", "vr-request": 7, "vr-pack-1-0": "x", "goog-x": "y", "": "z"}
    made = registry.register_version(churn, source(), metadata=metadata, stage="staging", version_name="v1")

    assert (made.metadata, made.stage, made.managed_by, made.version_name) == (metadata, Stage.STAGING, "zenml", "v1")
    changed = registry.update_version(churn, 1, remove_metadata=["stage", "managed_by"])
    assert (changed.stage, changed.managed_by) == (Stage.STAGING, "zenml")
    assert changed.metadata.keys() == metadata.keys() - {"stage", "managed_by"}


def test_label_safe_strings_are_labels(
    registry: RegistryClient, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """A value that's a valid label is readable in the console."""
    made = registry.register_version(name(), source(), metadata={"team": "growth", "git_sha": "9f2c1e7", "big": "A B"})
    labels = dict(vertex.get_model(name=made.resource_name).labels)

    assert labels["team"] == "growth"
    assert labels["git_sha"] == "9f2c1e7"
    assert labels["managed_by"] == "zenml"
    assert labels["stage"] == "none"


def test_what_googles_client_reads(
    registry: RegistryClient, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """Google's own client reads the stage, managed_by and the metadata as they were written."""
    made = registry.register_version(name(), source(), metadata={"team": "growth"}, stage="Production")
    labels = dict(vertex.get_model(name=made.resource_name).labels)

    assert {key: value for key, value in labels.items() if not key.startswith("vr-")} == {
        "stage": "production",
        "managed_by": "zenml",
        "team": "growth",
    }
    assert labels.keys() <= {"stage", "managed_by", "team", "vr-request", "vr-stage-changed-at", "vr-stage-history"}


@pytest.mark.each_switch("labels-at-upload", "label-wins")
def test_labels_of_foreign_tools(
    registry: RegistryClient, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """Labels of other tools are metadata, and an update keeps them as they are."""
    churn = name()
    made = registry.register_version(churn, source(), metadata={"a": 1})
    theirs = {"team": "growth", "größe": "süß", "vr-pack-9-3": "stray", "note": "_j_not-json"}
    read = dict(vertex.get_model(name=made.resource_name).labels)
    vertex.update_model(
        model=Model(name=made.resource_name, labels=read | theirs), update_mask=FieldMask(paths=["labels"])
    )

    assert registry.get_version(churn, 1).metadata == {"a": 1} | theirs
    registry.update_version(churn, 1, metadata={"a": 2})
    labels = dict(vertex.get_model(name=made.resource_name).labels)
    assert theirs.items() <= labels.items()


@pytest.mark.switches_together
def test_metadata_over_the_budget(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Metadata that doesn't fit is refused completely, and the error shows the budget."""
    churn = name()
    registry.register_version(churn, source(), metadata={"a": 1})

    with pytest.raises(InvalidArgumentError, match="Vertex allows 64"):
        registry.update_version(churn, 1, metadata=incompressible(64))
    assert registry.get_version(churn, 1).metadata == {"a": 1}
    with pytest.raises(InvalidArgumentError, match="Vertex allows 64"):
        registry.register_version(churn, source(), metadata=incompressible(64))
    with pytest.raises(NotFoundError):
        registry.get_version(churn, 2)


@pytest.mark.each_switch("labels-at-upload", "label-wins")
def test_a_label_of_the_models_that_hides_metadata(
    registry: RegistryClient, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """Metadata reads back as written, or an error names the model's label that hides it."""
    churn = name()
    made = registry.register_version(churn, source())
    vertex.update_model(
        model=Model(name=made.model_resource_name, labels={"team": "sales"}), update_mask=FieldMask(paths=["labels"])
    )

    try:
        assert registry.update_version(churn, 1, metadata={"team": "growth"}).metadata["team"] == "growth"
    except ConflictError as conflict:
        assert "'team'" in str(conflict)
        assert "growth" not in str(conflict)
    with pytest.raises(ConflictError, match="'team'"):
        registry.update_version(churn, 1, remove_metadata=["team"])


def test_descriptions(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A version has a description of its own, which can be changed and cleared."""
    churn = name()
    registry.register_version(churn, source(), description="a try", model_description="who leaves")

    assert registry.update_version(churn, 1, description="it worked", metadata={"a": 1}).description == "it worked"
    assert registry.update_version(churn, 1, description="").description == ""
    assert registry.get_version(churn, 1).metadata == {"a": 1}
    assert registry.get_model(churn).description == "who leaves"


@pytest.mark.switches_together
def test_an_update_of_nothing(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """An update without changes returns the version as it is."""
    churn = name()
    assert registry.register_version(churn, source()) == registry.update_version(churn, 1)


@pytest.mark.cassette
def test_aliases(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """An alias is on one version at a time. Giving it to another version moves it."""
    churn = name()
    registry.register_version(churn, source(), aliases=["champion"])
    registry.register_version(churn, source())

    assert "champion" in registry.add_aliases(churn, 2, ["champion", "blue-7"]).aliases
    assert "champion" not in registry.get_version(churn, 1).aliases
    assert registry.get_version(churn, "champion").version == "2"
    left = registry.remove_aliases(churn, "champion", ["champion", "not-there"])
    assert set(left.aliases) == {"blue-7", "default"}
    with pytest.raises(NotFoundError):
        registry.get_version(churn, "champion")
    assert registry.add_aliases(churn, 1, []).version == "1"


def test_default(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """You can choose the default version, and a model always has one."""
    churn = name()
    registry.register_version(churn, source(), aliases=["first"])
    registry.register_version(churn, source())

    assert registry.set_default(churn, "first").is_default
    assert registry.get_version(churn).version == "1"
    assert not registry.get_version(churn, 2).is_default
    with pytest.raises(InvalidArgumentError, match="set_default"):
        registry.remove_aliases(churn, 1, ["default"])


@pytest.mark.no_switches
def test_a_record_whose_fields_nobody_has_read(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A record decodes its fields when they're read, and can be pickled, copied, compared and hashed before."""
    churn = name()
    metadata = {"accuracy": 0.93, "nested": {"a": [1, None, "x" * 99]}}
    registry.register_version(churn, source(), metadata=metadata, version_name="1.0", stage="Staging")

    def fresh() -> ModelVersion:
        return registry.get_version(churn, 1)

    read = fresh()
    assert (read.metadata, read.stage, read.version_name) == (metadata, Stage.STAGING, "1.0")
    assert read.container is not None
    pickled = pickle.loads(pickle.dumps(fresh()))  # noqa: S301  # pickled here
    for copied in (pickled, copy.copy(fresh()), copy.deepcopy(fresh()), fresh()):
        assert copied == read
        assert hash(copied) == hash(read)
        assert repr(copied) == repr(read)
    assert attrs.evolve(fresh(), description="new") == attrs.evolve(read, description="new")
    assert fresh().to_dict() == read.to_dict()
    for field in attrs.fields(type(read)):
        if not field.name.startswith("_"):
            begun = fresh()
            assert getattr(begun, field.name) == getattr(read, field.name)  # decodes this one, and those with it
            assert begun == read
    emptied = fresh()
    emptied.labels.clear()
    assert emptied.metadata == metadata
    for wrong in ("metdata", "_repr_markdown_", "__len__"):
        assert not hasattr(fresh(), wrong)
    with pytest.raises(AttributeError, match="'ModelVersion' object has no attribute 'metdata'"):
        _ = getattr(read, "metdata")  # noqa: B009  # a type checker finds it
