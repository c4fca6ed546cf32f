"""Mistakes: each is one line on the command line and the right error in Python, and changes nothing."""

from __future__ import annotations

import datetime as dt
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from zenml.model_registries.base_model_registry import ModelRegistryModelMetadata

from vertex_registry import RegistryClient, RegistryError
from vertex_registry.emulator import Emulator
from vertex_registry.zenml import MissingError, UnsupportedError, VertexRegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.adapter.command_line import ZenML
    from vertex_registry.zenml import VertexModelRegistry

WRITES = {"UploadModel", "UpdateModel", "MergeVersionAliases", "DeleteModel", "DeleteModelVersion"}


def written(emulator: Emulator) -> set[str]:
    """Return which kinds of writes were sent."""
    return {request.rpc for request in emulator.requests()} & WRITES


def test_the_errors_are_what_zenml_expects() -> None:
    """Each error is click's, for the command line, and a built-in one, for code that catches it."""
    assert issubclass(MissingError, (click.ClickException, KeyError))
    assert issubclass(UnsupportedError, NotImplementedError)
    assert issubclass(UnsupportedError, VertexRegistryError)
    assert issubclass(VertexRegistryError, RuntimeError)
    assert str(MissingError("It is not there.")) == "It is not there."


def test_models_are_not_managed_by_themselves(registry: VertexModelRegistry, zenml: ZenML, emulator: Emulator) -> None:
    """Registering, updating or deleting a model is refused with one line that says what to do instead."""
    registry.register_model_version("churn", "1", "gs://models/1")
    before = len(emulator.requests())
    calls: dict[str, tuple[Callable[..., Any], str]] = {
        "register fraud": (registry.register_model, "register_model_version"),
        "update churn": (registry.update_model, "update-version churn -v VERSION"),
        "delete churn -y": (registry.delete_model, "delete-version churn -v VERSION"),
    }
    for command, (call, instead) in calls.items():
        line = zenml.try_(f"model-registry models {command}").line
        assert line.startswith("Error: ")
        assert instead in line
        with pytest.raises(NotImplementedError, match=instead):
            call("churn")

    assert not {request.rpc for request in emulator.requests()[before:]} & WRITES
    assert registry.get_model_version("churn", "1").version == "1"


def test_zenmls_register_version_fails(component: str, zenml: ZenML, emulator: Emulator) -> None:
    """ZenML's own command can't register a version, with any flavor. The guide says so as long as this holds."""
    with pytest.raises(TypeError, match="zenml_pipeline_run_id"):
        zenml.try_("model-registry models register-version churn -v 1 -u gs://models/1")

    assert component
    assert not emulator.requests()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model_source_uri": None}, "The source is empty"),
        ({"model_source_uri": "s3://models/1"}, "isn't in Cloud Storage"),
        ({"model_source_uri": "gs://models"}, "is a bucket without a directory"),
        ({"model_source_uri": "gs://models/1/model.pkl"}, "is a file"),
        ({"model_source_uri": Path("models")}, r"The source is a string, .*Pass str\(source\)"),
        ({"name": ""}, "name is empty"),
        ({"version": 2}, r"The version is a string, not 2, .* Pass str\(version\)"),
        ({"name": "n" * 129}, "129 characters"),
        ({"version": "v" * 129}, "129 characters"),
        ({"metadata": [("owner", "Ann")]}, "The metadata is a dict or a ModelRegistryModelMetadata, not a list"),
        ({"metadata": {"when": object()}}, "which JSON doesn't have"),
        ({"metadata": ModelRegistryModelMetadata.model_validate({"x": float("nan")})}, "isn't a finite number"),
        ({"stage": "Shadow"}, "There's no stage 'Shadow'"),
        ({"aliases": ["v1.0"]}, "isn't an alias"),
        ({"container": "caffe"}, "no prebuilt serving image 'caffe'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_invalid_registration(
    registry: VertexModelRegistry, emulator: Emulator, arguments: dict[str, Any], said: str
) -> None:
    """An invalid argument is a RuntimeError, caused by one of this package's errors, and nothing is sent."""
    right = {"name": "churn", "version": "1", "model_source_uri": "gs://models/1"}
    with pytest.raises(RuntimeError, match=said) as refused:
        registry.register_model_version(**{**right, **arguments})

    assert isinstance(refused.value, VertexRegistryError)
    assert "\n" not in str(refused.value)
    assert not written(emulator)


def test_a_resource_name_makes_no_model(registry: VertexModelRegistry, emulator: Emulator) -> None:
    """The resource name of a model that doesn't exist is a RuntimeError, like all that prevents a registration."""
    name = "projects/local-project/locations/us-central1/models/nobody"
    with pytest.raises(RuntimeError, match="nobody") as refused:
        registry.register_model_version(name, "1", "gs://models/1")

    assert not isinstance(refused.value, KeyError)
    assert not written(emulator)


@pytest.mark.parametrize("version", ["v" * 129, "1" * 129, "\ud800"], ids=["long", "number", "surrogate"])
def test_a_version_that_cannot_exist(registry: VertexModelRegistry, version: str) -> None:
    """A version with an impossible name or number doesn't exist."""
    registry.register_model_version("churn", "1", "gs://models/1")
    for call in (
        registry.get_model_version,
        registry.update_model_version,
        registry.delete_model_version,
        registry.load_model_version,
    ):
        with pytest.raises(KeyError, match="'churn' has no such version, by name or by number"):
            call("churn", version)


def test_invalid_conditions(registry: VertexModelRegistry) -> None:
    """A date instead of a time, and other invalid conditions, are RuntimeErrors that say what's wrong."""
    conditions: tuple[tuple[dict[str, Any], str], ...] = (
        ({"created_after": dt.date(2026, 1, 31)}, "created_after=datetime.date.* isn't a datetime with a time zone"),
        ({"created_before": dt.date(2026, 1, 31)}, "created_before=datetime.date.* isn't a datetime with a time zone"),
        ({"stage": "Shadow"}, "There's no stage 'Shadow'"),
        ({"count": "3"}, "count='3' isn't a number of versions"),
        ({"order_by_date": "oldest"}, "order_by_date='oldest' is neither 'asc' nor 'desc'"),
        ({"metadata": "owner"}, "The metadata is a dict or a ModelRegistryModelMetadata, not a str"),
    )
    for condition, said in conditions:
        with pytest.raises(RuntimeError, match=said):
            registry.list_model_versions("churn", **condition)
    registry.register_model_version("churn", "1", "gs://models/1")
    with pytest.raises(RuntimeError, match="There's no stage 'Shadow'"):
        registry.update_model_version("churn", "1", stage="Shadow")


def test_an_update_that_contradicts_itself(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """Setting and removing the same attribute is refused, and nothing is changed."""
    before = registry.register_model_version("churn", "1", "gs://models/1", metadata={"a": "1"})

    line = zenml.try_("model-registry models update-version churn -v 1 -s Production -m a 2 -rm a").line
    assert "metadata and remove_metadata both have 'a'" in line
    assert registry.get_model_version("churn", "1") == before


@pytest.mark.parametrize("location", ["us central1", "us-central1/models", "europe@west"])
def test_a_bad_location(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry], location: str
) -> None:
    """An invalid location is one line, and nothing is sent."""
    zenml.use(location=location)

    with pytest.raises(RuntimeError, match="isn't the name of a region"):
        active().register_model_version("churn", "1", "gs://models/1")
    assert f"location={location!r}" in zenml.try_("model-registry models list").line
    assert not emulator.requests()


def test_an_invalid_setting(zenml: ZenML, emulator: Emulator) -> None:
    """An invalid address, time or path is one line each, and nothing is sent."""
    for setting, said in (
        ({"api_endpoint": "ftp://vertex"}, "isn't an address of the service"),
        ({"timeout": "0"}, "isn't a positive number of seconds"),
        ({"service_account_path": "/nowhere/key.json"}, "can't be read"),
    ):
        zenml.use(**setting)
        assert said in zenml.try_("model-registry models list").line
    with pytest.raises(ValueError, match="api_transport"):
        zenml.try_("model-registry register carrier --flavor=vertex --api_transport=pigeon")
    assert not emulator.requests()


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_emulator_that_is_down(zenml: ZenML, active: Callable[[], VertexModelRegistry], scheme: str) -> None:
    """If nothing answers at the address, one line says which address and how long it was tried."""
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        zenml.use(api_endpoint=address, timeout="0.3")
        for command in (
            "list",
            "get churn",
            "list-versions churn",
            "get-version churn -v 1",
            "delete-version churn -v 1 -y",
        ):
            assert "Is the emulator running?" in zenml.try_(f"model-registry models {command}").line
        registry = active()
        with pytest.raises(RuntimeError, match=f"no usable response from {address}"):
            registry.register_model_version("churn", "1", "gs://models/1")
        with pytest.raises(RuntimeError) as refused:
            registry.get_model("churn")

    assert not isinstance(refused.value, KeyError)
    assert isinstance(refused.value.__cause__, RegistryError)


def test_messages_name_the_registrys_settings_and_methods(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """Messages name the settings and methods of the registry, not those of the client that it uses."""
    with Emulator(storage="", polls_until_done=1000) as slow:
        zenml.use(api_endpoint=str(slow.grpc), operation_timeout="0.1")
        with pytest.raises(RuntimeError, match=r"`--operation_timeout` sets how long to wait"):
            active().register_model_version("churn", "1", "gs://models/1")
    zenml.share()
    active().register_model_version("churn", "1", "gs://models/1")
    with pytest.raises(KeyError, match=r"list_model_versions\('churn'\) shows"):
        active().get_model_version("churn", "2")
    emulator.fail("ListModels", "DEADLINE_EXCEEDED", times=100)
    zenml.use(timeout="0.1")
    assert "`--timeout` sets how long the client retries" in zenml.try_("model-registry models list").line
    emulator.forget_faults()


def test_credentials_without_permission(registry: VertexModelRegistry, zenml: ZenML, emulator: Emulator) -> None:
    """If the credentials don't allow it, one line names the permission and the role."""
    emulator.fail("ListModels", "PERMISSION_DENIED", times=2)
    line = zenml.try_("model-registry models list").line
    assert "aiplatform.models.list" in line
    assert "roles/aiplatform.user" in line
    with pytest.raises(RuntimeError, match="aiplatform.models.list"):
        registry.list_models()


def test_a_version_that_is_deployed(registry: VertexModelRegistry, zenml: ZenML, emulator: Emulator) -> None:
    """If Vertex refuses to delete a version, you get one line, and the version is still the default one."""
    registry.register_model_version("churn", "1", "gs://models/1")
    registry.register_model_version("churn", "2", "gs://models/2")
    emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION", message="It is deployed.", times=2)

    assert "undeploy it" in zenml.try_("model-registry models delete-version churn -v 2 -y").line
    assert [version.version for version in registry.list_model_versions("churn")] == ["2", "1"]
    with RegistryClient() as client:
        assert client.get_version("churn").version_name == "2"


def test_a_version_that_somebody_else_deletes_first(
    registry: VertexModelRegistry, zenml: ZenML, emulator: Emulator
) -> None:
    """If somebody else deletes the version just before you do, you get one line."""
    registry.register_model_version("churn", "1", "gs://models/1")
    registry.register_model_version("churn", "2", "gs://models/2")
    emulator.fail("MergeVersionAliases", "NOT_FOUND", times=1)
    emulator.fail("DeleteModelVersion", "NOT_FOUND")

    assert zenml.try_("model-registry models delete-version churn -v 2 -y").line.startswith("Error: ")
