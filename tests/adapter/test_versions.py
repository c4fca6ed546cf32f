"""Names of versions, how they're found, and what's stored with them."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import strategies as st
from zenml.model_registries.base_model_registry import ModelRegistryModelMetadata, ModelVersionStage

from vertex_registry import RegistryClient
from vertex_registry.emulator import Emulator
from vertex_registry.zenml import VertexRegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.adapter.command_line import ZenML
    from vertex_registry.zenml import VertexModelRegistry


@pytest.fixture
def client(emulator: Emulator) -> Iterator[RegistryClient]:
    """Return a client of this package for the same registry."""
    del emulator
    with RegistryClient() as client:
        yield client


def listed(registry: VertexModelRegistry, name: str | None = "churn", **conditions: Any) -> list[str]:
    """Return the versions that a list shows."""
    return [version.version for version in registry.list_model_versions(name, **conditions)]


def test_a_number_finds_only_versions_without_a_name(registry: VertexModelRegistry) -> None:
    """A name is tried first, and Vertex's number finds only versions without a name."""
    registry.register_model_version("churn", "2", "gs://models/named-two")
    registry.register_model_version("churn", None, "gs://models/unnamed-two")
    registry.register_model_version("churn", None, "gs://models/unnamed-three")

    assert listed(registry) == ["3", "2", "2"]
    assert registry.get_model_version("churn", "2").model_source_uri == "gs://models/named-two"
    assert registry.get_model_version("churn", "3").model_source_uri == "gs://models/unnamed-three"
    for nobody in ("1", "4", "default", "-", "٣", "03"):
        with pytest.raises(KeyError):
            registry.get_model_version("churn", nobody)


def test_the_newest_of_a_name_wins(registry: VertexModelRegistry, client: RegistryClient) -> None:
    """The same source returns the existing version, another source makes a new one, and so does going back."""
    sources = ["gs://models/a", "gs://models/a", "gs://models/b", "gs://models/b", "gs://models/a", "gs://models/a"]
    seen = []
    for source in [*sources, "gs://models/b", "gs://models/b"]:
        made = registry.register_model_version("churn", "sgd", source)
        assert made.model_source_uri == source
        assert registry.get_model_version("churn", "sgd") == made
        seen.append(client.get_version("churn", version_name="sgd").version)

    assert seen == ["1", "1", "2", "2", "3", "3", "4", "4"]
    assert listed(registry) == ["sgd"] * 4


def test_a_slash_at_the_end_does_not_change_the_source(registry: VertexModelRegistry) -> None:
    """Slashes at the end of a directory don't make it another source."""
    first = registry.register_model_version("churn", "1", "gs://models/a")

    assert registry.register_model_version("churn", "1", "gs://models/a/") == first
    assert registry.register_model_version("churn", "1", "gs://models/a//") == first
    assert listed(registry) == ["1"]


def test_a_version_that_is_returned_unchanged(registry: VertexModelRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """Registering again with another description, metadata or stage changes nothing, and a warning says so."""
    given: dict[str, Any] = {"description": "one", "metadata": {"a": "secret-1", "b": 2}, "stage": "Staging"}
    first = registry.register_model_version("churn", "1", "gs://models/a", **given)
    with caplog.at_level("WARNING", "vertex_registry"):
        assert registry.register_model_version("churn", "1", "gs://models/a", **given) == first
        assert registry.register_model_version("churn", "1", "gs://models/a") == first
        assert not caplog.records
        for other, word in (
            ({"description": "two"}, "description"),
            ({"metadata": {"a": "secret-2", "b": 2}}, "metadata"),
            ({"stage": ModelVersionStage.PRODUCTION}, "stage"),
        ):
            assert registry.register_model_version("churn", "1", "gs://models/a", **{**given, **other}) == first
            (record,) = caplog.records
            assert f"returned unchanged: its {word} differs from what you passed" in record.getMessage()
            assert "Update the version if you want to change that" in record.getMessage()
            assert "secret" not in record.getMessage()
            caplog.clear()


@pytest.mark.parametrize("stage", ["Production", "production", ModelVersionStage.PRODUCTION])
def test_a_stage_by_its_name(registry: VertexModelRegistry, stage: Any) -> None:
    """You can pass ZenML's stage or its name wherever a stage is accepted."""
    registry.register_model_version("churn", "1", "gs://models/1", stage=stage)
    registry.register_model_version("churn", "2", "gs://models/2")
    assert listed(registry, stage=stage) == ["1"]

    assert registry.update_model_version("churn", "2", stage=stage).stage is ModelVersionStage.PRODUCTION
    assert listed(registry, stage=stage) == ["2", "1"]


def test_after_a_deletion_the_version_before_is_found(registry: VertexModelRegistry) -> None:
    """If the newest version of a name is deleted, the one before is found, and you can register it again."""
    registry.register_model_version("churn", "sgd", "gs://models/a")
    registry.register_model_version("churn", "sgd", "gs://models/b")
    registry.delete_model_version("churn", "sgd")

    assert registry.get_model_version("churn", "sgd").model_source_uri == "gs://models/a"
    assert registry.register_model_version("churn", "sgd", "gs://models/b").model_source_uri == "gs://models/b"
    assert registry.get_model_version("churn", "sgd").model_source_uri == "gs://models/b"


def test_a_registration_that_was_cut_off_is_finished(registry: VertexModelRegistry, emulator: Emulator) -> None:
    """A step that failed during a registration finishes it when it runs again, and makes no second version."""
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(RuntimeError, match="UpdateModel isn't allowed"):
        registry.register_model_version("churn", "1", "gs://models/1", metadata={"a": "b"})
    version = registry.register_model_version("churn", "1", "gs://models/1", metadata={"a": "b"})

    assert listed(registry) == ["1"]
    assert version.metadata == ModelRegistryModelMetadata.model_validate({"a": "b"})
    assert registry.get_model_version("churn", "1") == version


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_version_finds_nothing(registry: VertexModelRegistry, zenml: ZenML, nothing: Any) -> None:
    """Neither None nor "" finds a version, least of all the default one."""
    registry.register_model_version("churn", "1", "gs://models/1")
    registry.register_model_version("churn", None, "gs://models/2")
    for call in (
        registry.get_model_version,
        registry.delete_model_version,
        registry.load_model_version,
        registry.update_model_version,
    ):
        with pytest.raises(KeyError, match="No version of 'churn' was named"):
            call("churn", nothing)

    given = [] if nothing is None else ["-v", nothing]
    for command in (
        ["delete-version", "churn", "-y"],
        ["get-version", "churn"],
        ["update-version", "churn", "-d", "x"],
    ):
        assert "does not exist" in zenml.try_(["model-registry", "models", *command, *given]).line
    assert listed(registry) == ["2", "1"]


def test_dates_are_in_utc(
    zenml: ZenML, monkeypatch: pytest.MonkeyPatch, active: Callable[[], VertexModelRegistry]
) -> None:
    """ZenML's dates have no time zone, and mean midnight in UTC on every machine."""
    now = dt.datetime(2026, 1, 1, 23, 30, tzinfo=dt.UTC)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        with Emulator(storage="", now=lambda: now) as emulator:
            monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", str(emulator.grpc))
            zenml.share()
            registry = active()
            registry.register_model_version("churn", "before", "gs://models/1")
            now += dt.timedelta(hours=1)
            registry.register_model_version("churn", "after", "gs://models/2")

            midnight = dt.datetime(2026, 1, 2)  # noqa: DTZ001  # as ZenML gives it
            assert listed(registry, created_after=midnight) == ["after"]
            assert listed(registry, created_before=midnight) == ["before"]
            assert listed(registry, created_before=midnight.astimezone()) == ["after", "before"]
            shown = zenml("model-registry models list-versions churn --created-after 2026-01-02")
            assert "after" in shown
            assert "before" not in shown
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_of_every_model(registry: VertexModelRegistry) -> None:
    """Without a name, the versions of all models are listed, newest or oldest first."""
    for number, name in enumerate(["churn", "fraud", "churn", "fraud"]):
        registry.register_model_version(name, f"v{number}", f"gs://models/{number}")

    assert listed(registry, None) == ["v3", "v2", "v1", "v0"]
    assert listed(registry, None, order_by_date="asc", count=2) == ["v0", "v1"]


def test_a_list_of_nothing(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """A model that doesn't exist has no versions and no latest one, and listing it isn't an error."""
    assert listed(registry, "nobody") == []
    assert registry.get_latest_model_version("nobody") is None
    assert zenml("model-registry models list-versions nobody").strip() == "No model versions found."
    assert zenml("model-registry models list").strip() == "No models found."
    with pytest.raises(RuntimeError, match="count=-1"):
        listed(registry, count=-1)


def test_the_latest_version(registry: VertexModelRegistry) -> None:
    """The latest version is the newest one, or the newest one in a stage."""
    for number in ("1", "2", "3"):
        registry.register_model_version("churn", number, f"gs://models/{number}")
    registry.update_model_version("churn", "2", stage=ModelVersionStage.PRODUCTION)

    latest = registry.get_latest_model_version("churn")
    promoted = registry.get_latest_model_version("churn", ModelVersionStage.PRODUCTION)
    assert latest is not None
    assert promoted is not None
    assert (latest.version, promoted.version) == ("3", "2")
    assert registry.get_latest_model_version("churn", ModelVersionStage.STAGING) is None


def test_an_update_on_the_command_line(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """Stage, description and metadata change together, and the rest stays."""
    registry.register_model_version(
        "churn", "1", "gs://models/1", "first", {"a": "1", "B": "2", "zenml_version": "0.98"}
    )
    zenml("model-registry models update-version churn -v 1 -s Staging -m c 3 -rm a -rm nobody")
    changed = registry.get_model_version("churn", "1")

    assert changed.stage is ModelVersionStage.STAGING
    assert changed.description == "first"
    assert changed.metadata == ModelRegistryModelMetadata.model_validate({"B": "2", "c": "3", "zenml_version": "0.98"})
    zenml(["model-registry", "models", "update-version", "churn", "-v", "1", "-d", ""])
    assert registry.get_model_version("churn", "1").description == ""


def test_everything_is_managed_by_zenml(registry: VertexModelRegistry, client: RegistryClient) -> None:
    """Each version and its model have the label ``managed_by=zenml``, even after changes."""
    registry.register_model_version("churn", "1", "gs://models/1", metadata={"managed_by": "somebody"})
    registry.update_model_version("churn", "1", metadata={"managed_by": "else"}, stage=ModelVersionStage.ARCHIVED)

    version = client.get_version("churn", version_name="1")
    assert version.managed_by == version.labels["managed_by"] == "zenml"
    assert client.get_model("churn").managed_by == "zenml"
    assert registry.get_model("churn").metadata == {"managed_by": "zenml"}, "the stage is the version's"
    assert registry.list_models(metadata={"managed_by": "zenml"}) == [registry.get_model("churn")]
    assert registry.list_models(metadata={"managed_by": "nobody"}) == []


def test_labels_of_other_tools(registry: VertexModelRegistry, client: RegistryClient) -> None:
    """Labels of other tools are attributes, and none breaks a read, even under one of ZenML's keys."""
    client.register_version("churn", "gs://models/1", metadata={"zenml_version": 98, "team": "growth", "accuracy": 0.9})
    version = registry.get_model_version("churn", "1")

    assert version.metadata is not None
    assert version.metadata.zenml_version == "98"
    assert version.metadata.model_extra == {"team": "growth", "accuracy": 0.9}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=5,
)
FIELDS = sorted(ModelRegistryModelMetadata.model_fields)


@pytest.fixture(scope="module")
def one_registry(zenml: ZenML) -> Iterator[VertexModelRegistry]:
    """Return one registry for all examples of a property."""
    from zenml.client import Client  # noqa: PLC0415  # ZenML is initialised by then

    with Emulator(storage="") as emulator:
        zenml.use(api_endpoint=str(emulator.grpc))
        registry: Any = Client().active_stack.model_registry
        yield registry
        registry.cleanup()


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    fields=st.dictionaries(st.sampled_from(FIELDS), TEXTS, max_size=7),
    attributes=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
            lambda key: key not in FIELDS
        ),
        VALUES,
        max_size=5,
    ),
)
def test_metadata_comes_back_equal(
    one_registry: VertexModelRegistry, fields: dict[str, str], attributes: dict[str, Any]
) -> None:
    """Metadata comes back equal, whether it was registered or set, in fields or attributes."""
    metadata = ModelRegistryModelMetadata.model_validate({**fields, **attributes})
    try:
        made = one_registry.register_model_version("property", None, "gs://models/1", metadata=metadata)
    except VertexRegistryError as error:
        assert "Vertex allows 64" in str(error)
        hypothesis.reject()  # it does not fit
    assert made.metadata == metadata
    assert one_registry.get_model_version("property", made.version).metadata == metadata

    empty = one_registry.register_model_version("property", None, "gs://models/1")
    assert one_registry.update_model_version("property", empty.version, metadata=metadata).metadata == metadata
