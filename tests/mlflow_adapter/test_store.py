"""What's specific to a registry on Vertex: URIs, models without versions, other numbers, aliases, errors."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException

from vertex_registry import RegistryClient, local_registry
from vertex_registry.emulator import Emulator
from vertex_registry.mlflow import (
    VertexModelRegistryStore,
    read_description,
    to_vertex_alias,
    write_description,
)
from vertex_registry.mlflow_artifacts import LocalArtifacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IMAGE = "image=us-docker.pkg.dev/acme/serving/churn:7"


@pytest.fixture
def store(local: str) -> Iterator[VertexModelRegistryStore]:
    """Return a registry in a file, whose models have a custom image."""
    store = VertexModelRegistryStore(f"{local}?{IMAGE}")
    yield store
    store.close()


def refusal(code: str, call: Callable[[], object]) -> str:
    """Return the message of the MLflow error that a call raises, and check its code."""
    with pytest.raises(MlflowException) as refused:
        call()
    assert refused.value.error_code == code
    return str(refused.value)


# --- URIs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("vertex://acme/europe-west4", "project='acme', location='europe-west4'"),
        ("vertex://acme/europe-west4/", "project='acme', location='europe-west4'"),
        ("vertex://acme", "project='acme', location='us-central1'"),
        ("vertex://acme/us-east1?endpoint=127.0.0.1:9&staging_bucket=gs://models/d&actor=ann", "location='us-east1'"),
    ],
)
def test_uris(uri: str, shown: str) -> None:
    """A URI names the project, the location and settings of the client. Nothing is sent before the first call."""
    assert shown in repr(VertexModelRegistryStore(uri).client)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("vertex://", "isn't the URI of a Vertex registry"),
        ("vertex:acme", "isn't the URI of a Vertex registry"),
        ("vertex://acme/us-central1/churn", "more than a project and a location"),
        (
            "vertex://acme/us-central1?bucket=gs://b",
            "a setting 'bucket', which doesn't exist. The settings are staging",
        ),
    ],
)
def test_wrong_uris(uri: str, message: str) -> None:
    """An invalid URI is refused when MLflow creates the store, at the first call."""
    assert message in refusal("INVALID_PARAMETER_VALUE", lambda: VertexModelRegistryStore(uri))


@pytest.mark.parametrize("setting", ["staging_bucket=churn", "image=churn", "transport=http", "endpoint=a b"])
def test_wrong_settings(setting: str) -> None:
    """An invalid setting is refused at the first call."""
    client = mlflow.MlflowClient(registry_uri=f"vertex://acme/us-central1?{setting}")

    refusal("INVALID_PARAMETER_VALUE", client.search_registered_models)


def test_a_file_by_its_path(tmp_path: Path, folder: Path) -> None:
    """A path without a second slash is relative. All spellings of a path mean the same file, which stays on disk."""
    relative = VertexModelRegistryStore(f"vertex://local/a%20b.db?{IMAGE}")
    relative.create_model_version("churn", str(folder))
    absolute = VertexModelRegistryStore(f"vertex://local/{tmp_path}/./a b.db?{IMAGE}")
    assert absolute.client is relative.client
    relative.close()

    assert (tmp_path / "a b.db").exists()
    assert absolute.get_model_version("churn", 1).version == 1
    absolute.close()


def test_a_registry_in_memory(folder: Path) -> None:
    """Without a file, the registry lasts as long as the process."""
    store = VertexModelRegistryStore(f"vertex://local?{IMAGE}")
    store.create_model_version("churn", str(folder))

    assert [model.name for model in VertexModelRegistryStore(f"vertex://local?{IMAGE}").search_registered_models()] == [
        "churn"
    ]
    store.close()
    assert store.search_registered_models() == []
    store.close()


def test_a_file_that_is_open_elsewhere(store: VertexModelRegistryStore, tmp_path: Path) -> None:
    """The message says how several processes can use one file."""
    with local_registry(tmp_path / "vertex.db"):
        message = refusal("RESOURCE_CONFLICT", store.search_registered_models)

    assert "run `mlflow server` with --workers 1" in message
    assert store.search_registered_models() == []


def test_importing_the_store(tmp_path: Path) -> None:
    """MLflow imports the store in every process, so Google's libraries wait for the first call. Any order is fine."""
    script = """
        import sys
        import vertex_registry.mlflow
        import mlflow
        from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories
        mlflow.MlflowClient(registry_uri="vertex://acme/us-central1")
        print("vertex-local" in get_registered_artifact_repositories())
        print([name for name in ("grpc", "google.cloud.aiplatform_v1", "google.cloud.storage") if name in sys.modules])
    """
    environment = os.environ | {"MLFLOW_TRACKING_URI": "sqlite://"}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split("\n")[:2] == ["True", "[]"]


# --- models without a version -----------------------------------------------------------------------------------------


def test_a_new_model_is_remembered_until_its_first_version(store: VertexModelRegistryStore, folder: Path) -> None:
    """A model without versions is listed, found, changed and renamed like any other. Its first version creates it."""
    store.create_registered_model("new", [RegisteredModelTag("team", "growth")], "one")
    store.update_registered_model("new", "two")
    store.set_registered_model_tag("new", RegisteredModelTag("Größe", "7"))
    store.delete_registered_model_tag("new", "team")
    store.rename_registered_model("new", "churn")
    assert "already exists" in refusal("RESOURCE_ALREADY_EXISTS", lambda: store.create_registered_model("churn"))
    assert list(store.client.list_models()) == []
    (listed,) = store.search_registered_models("tags.Größe = '7'")
    assert (listed.name, listed.description, listed.latest_versions) == ("churn", "two", [])
    assert store.get_latest_versions("churn") == []
    store.create_model_version("churn", str(folder))

    (model,) = store.client.list_models()
    assert (model.name, model.description) == ("churn", 'two\n\nMLflow tags: {"Größe": "7"}')
    found = store.get_registered_model("churn")
    assert (found.tags, found.description, len(found.latest_versions)) == ({"Größe": "7"}, "two", 1)


def test_a_new_model_is_known_to_one_process(store: VertexModelRegistryStore, folder: Path) -> None:
    """If another process creates the model with its first version, this one sees it."""
    store.create_registered_model("churn", description="ours")
    store.client.register_version("churn", folder, model_description="theirs")

    store.set_registered_model_tag("churn", RegisteredModelTag("team", "growth"))
    found = store.get_registered_model("churn")
    assert (found.description, found.tags) == ("theirs", {"team": "growth"})
    assert [version.version for version in store.get_latest_versions("churn")] == [1]
    assert store.create_model_version("churn", str(folder)).version == 2
    assert store.create_model_version("unknown", str(folder)).version == 1
    store.create_registered_model("uplift")
    store.client.register_version("uplift", folder)
    store.rename_registered_model("uplift", "uplifts")
    store.create_registered_model("other")
    store.client.register_version("other", folder)
    store.delete_registered_model("other")
    assert sorted(model.name for model in store.client.list_models()) == ["churn", "unknown", "uplifts"]


def test_a_model_survives_its_last_version(store: VertexModelRegistryStore, folder: Path) -> None:
    """Vertex deletes a model with its last version. The store remembers the model, and no number is reused."""
    store.create_registered_model("churn", [RegisteredModelTag("team", "growth")], "who leaves")
    for _ in range(2):
        store.create_model_version("churn", str(folder))
    store.delete_model_version("churn", 1)
    store.delete_model_version("churn", 2)
    left = store.get_registered_model("churn")
    assert (left.description, left.tags, left.latest_versions) == ("who leaves", {"team": "growth"}, [])
    assert list(store.client.list_models()) == []

    again = [store.create_model_version("churn", str(folder)).version for _ in range(2)]
    assert again == [3, 4]
    assert [store.get_model_version("churn", number).version for number in (3, 4)] == [3, 4]
    refusal("RESOURCE_DOES_NOT_EXIST", lambda: store.get_model_version("churn", 1))
    assert store.get_registered_model("churn").tags == {"team": "growth"}
    store.delete_registered_model("churn")
    refusal("RESOURCE_DOES_NOT_EXIST", lambda: store.get_registered_model("churn"))


# --- versions from elsewhere ------------------------------------------------------------------------------------------


def test_numbers_that_a_registry_brought_along(store: VertexModelRegistryStore, folder: Path) -> None:
    """If a version's name is a number, that's its number in MLflow. Later versions continue from there."""
    for name in ("2", "3", "7", "v8"):
        store.client.register_version("churn", folder, version_name=name)
    assert [store.create_model_version("churn", str(folder)).version for _ in range(2)] == [5, 6]
    store.client.register_version("uplift", folder, version_name="2")
    store.client.register_version("uplift", folder, version_name="7")
    new = [store.create_model_version("uplift", str(folder)).version for _ in range(2)]
    assert new == [8, 9]
    for number in (2, 7, 8, 9):
        assert store.get_model_version("uplift", number).version == number
        store.set_model_version_tag("uplift", number, ModelVersionTag("n", str(number)))
    for number in (0, 1, 3, 4, 10):
        refusal("RESOURCE_DOES_NOT_EXIST", functools.partial(store.get_model_version, "uplift", number))

    listed = store.search_model_versions("name = 'uplift' AND version_number > 2", order_by=["version_number ASC"])
    assert [(version.version, version.tags) for version in listed] == [(n, {"n": str(n)}) for n in (7, 8, 9)]
    assert store.get_model_version_by_alias("uplift", "latest").version == 9
    store.set_registered_model_alias("uplift", "champion", 8)
    assert store.get_registered_model("uplift").aliases == {"default": 7, "champion": 8}


# --- aliases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "on_vertex"),
    [
        ("champion", "champion"),
        ("Champion", "champion"),
        ("prod_candidate", "prod-candidate"),
        ("2026", "alias-2026"),
        ("x", "alias-x"),
        ("_", "alias"),
        ("vr-name", "alias-vr-name"),
        ("a-", "alias-a"),
        ("naïve", "na-ve-f86fd89d"),
    ],
)
def test_aliases_on_vertex(store: VertexModelRegistryStore, folder: Path, alias: str, on_vertex: str) -> None:
    """An alias is found as it was given to MLflow. On Vertex, it has an allowed form."""
    store.create_model_version("churn", str(folder))
    store.set_registered_model_alias("churn", alias, 1)

    assert to_vertex_alias(alias) == on_vertex
    assert store.client.get_version("churn", on_vertex).version == "1"
    assert store.get_model_version_by_alias("churn", alias).aliases == sorted([alias, "default"])


def test_long_aliases(store: VertexModelRegistryStore, folder: Path) -> None:
    """Two long aliases that start with the same text are two aliases on Vertex."""
    store.create_model_version("churn", str(folder))
    aliases = [f"{'a' * 254}{letter}" for letter in "bc"]
    for alias in aliases:
        store.set_registered_model_alias("churn", alias, 1)

    assert store.get_model_version("churn", 1).aliases == sorted([*aliases, "default"])


def test_aliases_that_are_one_on_vertex(store: VertexModelRegistryStore, folder: Path) -> None:
    """The second alias is refused, and finds nothing. When the first one is deleted, it can be set."""
    for _ in range(2):
        store.create_model_version("churn", str(folder))
    store.set_registered_model_alias("churn", "Champion", 1)
    message = refusal("INVALID_PARAMETER_VALUE", lambda: store.set_registered_model_alias("churn", "champion", 2))
    assert message.startswith(
        "The alias 'champion' would be 'champion' on Vertex, and so is 'Champion', which version 1"
    )
    refusal("INVALID_PARAMETER_VALUE", lambda: store.get_model_version_by_alias("churn", "champion"))
    store.delete_registered_model_alias("churn", "champion")
    store.set_registered_model_alias("churn", "Champion", 2)
    assert store.get_registered_model("churn").aliases == {"Champion": 2, "default": 1}
    store.delete_registered_model_alias("churn", "Champion")
    store.set_registered_model_alias("churn", "champion", 2)

    assert store.get_registered_model("churn").aliases == {"champion": 2, "default": 1}


def test_the_alias_default(store: VertexModelRegistryStore, folder: Path) -> None:
    """The alias is on Vertex's default version: the first one, until you move it. It can't be removed."""
    for _ in range(2):
        store.create_model_version("churn", str(folder))
    assert store.client.get_model("churn").default_version == "1"
    store.set_registered_model_alias("churn", "default", 2)

    assert store.client.get_model("churn").default_version == "2"
    refusal("INVALID_PARAMETER_VALUE", lambda: store.delete_registered_model_alias("churn", "default"))


# --- tags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "description", ["", "who leaves", "a\nb\n", "MLflow tags: {}", 'x\nMLflow tags: {"a": "b"}', "\n"]
)
@pytest.mark.parametrize("tags", [{}, {"team": "growth"}, {"a b": 'new\nline "quoted" \u2028 ✓'}])
def test_a_description_holds_tags(description: str, tags: dict[str, str]) -> None:
    """Both are returned unchanged, whatever they contain."""
    text = write_description(description, tags)

    assert read_description(text) == (description, tags)
    assert write_description(*read_description(text)) == text


@pytest.mark.parametrize(
    "text", ["MLflow tags: ", "MLflow tags: []", 'MLflow tags: {"a": 1}', "MLflow tags: " + "[" * 10**5]
)
def test_a_description_that_somebody_else_wrote(text: str) -> None:
    """A description that doesn't contain tags is text."""
    assert read_description(text) == (text, {})


def test_two_clients_set_tags_at_once() -> None:
    """A model's tags are stored in its description on Vertex, and none is lost."""
    with Emulator() as emulator:
        uris = [f"vertex://acme/us-central1?endpoint={emulator.grpc}&actor={actor}&{IMAGE}" for actor in ("ann", "bob")]
        stores = [VertexModelRegistryStore(uri) for uri in uris]
        with RegistryClient(endpoint=emulator.grpc, project="acme") as client:
            client.register_version("churn", "gs://models/churn/1")

        def tag(store: VertexModelRegistryStore, who: str) -> None:
            for number in range(5):
                store.set_registered_model_tag("churn", RegisteredModelTag(f"{who}{number}", "x"))

        threads = [threading.Thread(target=tag, args=(store, who)) for store, who in zip(stores, "ab", strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(stores[0].get_registered_model("churn").tags) == 10
        for store in stores:
            store.close()


def test_tags_that_do_not_fit(store: VertexModelRegistryStore, folder: Path) -> None:
    """A version's tags are its metadata, which labels bound. Keys of its own fields are reserved."""
    store.create_model_version("churn", str(folder))
    big = os.urandom(4_000).hex()
    refusal("INVALID_PARAMETER_VALUE", lambda: store.set_model_version_tag("churn", 1, ModelVersionTag("big", big)))
    reserved = ModelVersionTag("mlflow-source", "x")
    assert "is reserved" in refusal(
        "INVALID_PARAMETER_VALUE", lambda: store.set_model_version_tag("churn", 1, reserved)
    )
    store.delete_model_version_tag("churn", 1, "mlflow-source")

    assert store.get_model_version("churn", 1).source == str(folder)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_errors_have_mlflows_codes(folder: Path) -> None:
    """An error from Vertex gets one of MLflow's codes, with this package's message."""
    with Emulator() as emulator:
        store = VertexModelRegistryStore(f"vertex://acme/us-central1?endpoint={emulator.grpc}&{IMAGE}")
        store.client.register_version("churn", "gs://models/churn/1", check_source=False)
        for fault, code in (("PERMISSION_DENIED", "PERMISSION_DENIED"), ("UNAUTHENTICATED", "UNAUTHENTICATED")):
            emulator.fail("GetModel", code=fault)
            assert "churn" in refusal(code, lambda: store.get_model_version("churn", 1)) or fault == "UNAUTHENTICATED"
        emulator.fail("UploadModel", code="INVALID_ARGUMENT")
        refusal("INVALID_PARAMETER_VALUE", lambda: store.create_model_version("churn", "gs://models/churn/2"))
        assert "Add ?staging_bucket=gs://BUCKET" in refusal(
            "INVALID_PARAMETER_VALUE", lambda: store.create_model_version("churn", str(folder))
        )
        assert store.create_model_version("churn", "gs://models/churn/2").source == "gs://models/churn/2"
        store.close()


UNSUPPORTED: dict[str, Callable[[VertexModelRegistryStore], Any]] = {
    "a prompt": lambda store: store.create_prompt("greeting"),
    "a webhook": lambda store: store.create_webhook("hook", "https://example.com", []),
    "a change of an artifact": lambda store: LocalArtifacts("vertex-local:/x").log_artifact("file"),
    "a change of artifacts": lambda store: LocalArtifacts("vertex-local:/x").log_artifacts("folder"),
    "a deletion of artifacts": lambda store: LocalArtifacts("vertex-local:/x").delete_artifacts(),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_vertex_cannot_do(store: VertexModelRegistryStore, what: str) -> None:
    """An operation that Vertex doesn't support raises MLflow's NOT_IMPLEMENTED."""
    refusal("NOT_IMPLEMENTED", lambda: UNSUPPORTED[what](store))
    assert list(store.list_webhooks()) == []


@pytest.mark.parametrize("pages", [0, -1, True, "2", 10**6])
def test_pages_that_are_too_large(store: VertexModelRegistryStore, pages: Any) -> None:
    """The number of results is checked, as in MLflow's own registry."""
    for search in (store.search_registered_models, store.search_model_versions):
        assert "isn't a number from 1 to" in refusal(
            "INVALID_PARAMETER_VALUE", functools.partial(search, max_results=pages)
        )


def test_a_model_that_no_image_serves(local: str, tmp_path: Path) -> None:
    """The message says what to add to the URI. With an image of one's own, any model can be registered."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.pyfunc.model}}")
    source = (tmp_path / "model").as_uri()
    plain = VertexModelRegistryStore(local)
    message = refusal("INVALID_PARAMETER_VALUE", lambda: plain.create_model_version("churn", source))
    assert "Add ?image=IMAGE to the registry's URI to name an image that serves it" in message
    plain.close()
    own = VertexModelRegistryStore(f"{local}?{IMAGE}")

    assert own.create_model_version("churn", source).source == source
    own.close()


@pytest.mark.parametrize(
    "source", ["/no/such/folder", "file:///no/such/folder", "s3://bucket/model", "runs:/nope/model"]
)
def test_sources_that_cannot_be_read(store: VertexModelRegistryStore, source: str) -> None:
    """Nothing is registered, and the error is an MlflowException."""
    with pytest.raises(MlflowException):
        store.create_model_version("churn", source)

    assert list(store.client.list_models()) == []
