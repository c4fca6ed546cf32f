"""Where artifacts are, how they get to Cloud Storage, and how the model is loaded again."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import cloudpickle  # type: ignore[import-untyped]  # ships no types
import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.behaviour.incompressible import incompressible
from vertex_registry import RegistryClient, ServingContainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.adapter.command_line import ZenML
    from tests.storage.server import StorageServer
    from vertex_registry.emulator import Emulator
    from vertex_registry.zenml import VertexModelRegistry

# Google has no image for the scikit-learn of today, and the client says so.
pytestmark = pytest.mark.filterwarnings("ignore:Google has no serving image for scikit-learn")


@pytest.fixture(scope="module")
def model() -> Any:
    """Return a classifier of irises."""
    features, species = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=1000).fit(features, species)


@pytest.fixture
def artifact(tmp_path: Path, model: Any) -> Path:
    """Return the folder that ZenML creates for the classifier in its default artifact store."""
    folder = tmp_path / "sklearn_classifier" / "output"
    folder.mkdir(parents=True)
    (folder / "artifact.pkl").write_bytes(cloudpickle.dumps(model))
    (folder / "python_version.txt").write_text("3.11.7", encoding="utf-8")
    return folder


@pytest.fixture
def staging(
    storage: StorageServer, zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> VertexModelRegistry:
    """Return a registry with a staging bucket."""
    del storage, emulator
    zenml.share(staging_bucket="gs://staging/models")
    return active()


def loads(registry: VertexModelRegistry, version: str) -> bool:
    """Return whether the version is the classifier."""
    loaded = registry.load_model_version("iris", version, trusted=True)
    return list(loaded.predict([[5.1, 3.5, 1.4, 0.2], [5.9, 3.0, 5.1, 1.8]])) == [0, 2]


def test_a_local_artifact_without_a_staging_bucket(
    zenml: ZenML, registry: VertexModelRegistry, artifact: Path, emulator: Emulator
) -> None:
    """One line names both solutions, and nothing is sent."""
    with pytest.raises(RuntimeError) as refused:
        registry.register_model_version("iris", "1", str(artifact))

    assert "GCS artifact store" in str(refused.value)
    assert "--staging_bucket=gs://BUCKET" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "UploadModel" not in {request.rpc for request in emulator.requests()}
    assert zenml("model-registry models list-versions iris").strip() == "No model versions found."


def test_a_local_artifact_is_staged(staging: VertexModelRegistry, artifact: Path, storage: StorageServer) -> None:
    """ZenML's pickle is copied under the name that the image loads, registered from there, and loaded again."""
    version = staging.register_model_version("iris", "1", str(artifact))

    uri = staging.get_model_uri_artifact_store(version)
    assert uri.startswith("gs://staging/models/")
    prefix = uri.removeprefix("gs://staging/")
    names = [name for name in storage.names("staging") if name.startswith(prefix)]
    assert sorted(names) == [f"{prefix}/model.pkl", f"{prefix}/python_version.txt"]
    assert (artifact / "artifact.pkl").exists()
    assert loads(staging, "1")


def test_a_staged_artifact_is_registered_once(staging: VertexModelRegistry, artifact: Path, model: Any) -> None:
    """The same content returns the existing version, and changed content is a new version."""
    first = staging.register_model_version("iris", "1", str(artifact))
    assert staging.register_model_version("iris", "1", str(artifact)) == first
    (artifact / "python_version.txt").write_text("3.12", encoding="utf-8")
    second = staging.register_model_version("iris", "1", str(artifact))

    assert second.model_source_uri != first.model_source_uri
    assert staging.get_model_version("iris", "1") == second
    assert len(staging.list_model_versions("iris")) == 2
    assert model is not None


def test_an_artifact_in_cloud_storage_that_the_image_cannot_load(
    storage: StorageServer, zenml: ZenML, registry: VertexModelRegistry, artifact: Path, emulator: Emulator
) -> None:
    """It's refused before anything is sent, in one line that names the staging bucket and another image."""
    storage.put("models", "refused/artifact.pkl", (artifact / "artifact.pkl").read_bytes())

    with pytest.raises(RuntimeError) as refused:
        registry.register_model_version("iris", "1", "gs://models/refused")
    message = str(refused.value)
    assert "gs://models/refused can't be served by" in message
    assert "--staging_bucket=gs://BUCKET" in message
    assert "--serving_image=IMAGE" in message
    assert "\n" not in message
    assert "UploadModel" not in {request.rpc for request in emulator.requests()}
    assert zenml("model-registry models list").strip() == "No models found."


def test_an_artifact_in_cloud_storage_is_staged(
    staging: VertexModelRegistry, storage: StorageServer, artifact: Path
) -> None:
    """With a staging bucket, a pickle in a GCS artifact store is copied under the name that the image loads."""
    storage.put("models", "gcs/artifact.pkl", (artifact / "artifact.pkl").read_bytes())
    version = staging.register_model_version("iris", "1", "gs://models/gcs")

    assert version.model_source_uri.startswith("gs://staging/models/")
    assert loads(staging, "1")


def test_an_artifact_that_can_be_served_stays_where_it_is(
    staging: VertexModelRegistry, storage: StorageServer, tmp_path: Path, model: Any
) -> None:
    """An artifact that the image can load is registered where it is."""
    joblib.dump(model, tmp_path / "model.joblib")
    storage.put("models", "served/model.joblib", (tmp_path / "model.joblib").read_bytes())
    before = storage.names("staging")

    assert staging.register_model_version("iris", "1", "gs://models/served").model_source_uri == "gs://models/served"
    assert storage.names("staging") == before
    assert loads(staging, "1")


@pytest.mark.parametrize(
    "container", ["europe-docker.pkg.dev/acme/own:1", ServingContainer("europe-docker.pkg.dev/acme/own:1")]
)
def test_another_image_gets_the_folder_as_it_is(
    staging: VertexModelRegistry, artifact: Path, storage: StorageServer, container: Any
) -> None:
    """For images that aren't prebuilt, nothing is renamed."""
    version = staging.register_model_version("iris", "raw", str(artifact), container=container)

    names = [
        name for name in storage.names("staging") if version.model_source_uri.removeprefix("gs://staging/") in name
    ]
    assert [name.rpartition("/")[2] for name in names] == ["artifact.pkl", "python_version.txt"]
    assert loads(staging, "raw")


def test_what_runs_code_is_loaded_for_those_who_trust_it(staging: VertexModelRegistry, artifact: Path) -> None:
    """A pickle isn't loaded unless you trust its writer, and the message says why."""
    staging.register_model_version("iris", "1", str(artifact))

    with pytest.raises(RuntimeError, match="runs whatever code .* trusted=True"):
        staging.load_model_version("iris", "1")


def test_a_missing_artifact(staging: VertexModelRegistry, tmp_path: Path, emulator: Emulator) -> None:
    """If the artifact doesn't exist, here or in Cloud Storage, you get one line, and nothing is registered."""
    for source in (str(tmp_path / "gone"), "gs://models/gone"):
        with pytest.raises(RuntimeError) as refused:
            staging.register_model_version("iris", "1", source)
        assert source in str(refused.value)
    assert "UploadModel" not in {request.rpc for request in emulator.requests()}


def test_an_unreadable_artifact(staging: VertexModelRegistry, tmp_path: Path, emulator: Emulator) -> None:
    """A store that ZenML can't read, and a folder with a broken link, are one line each."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "artifact.pkl").symlink_to(folder / "gone")
    for source, says in (
        ("s3://models/1", "can't be read, and nothing was registered: "),
        (str(folder), "read: No such"),
    ):
        with pytest.raises(RuntimeError, match=says) as refused:
            staging.register_model_version("iris", "1", source)
        assert source in str(refused.value)
        assert "\n" not in str(refused.value)
    assert "UploadModel" not in {request.rpc for request in emulator.requests()}


def test_an_invalid_staging_bucket(
    zenml: ZenML, storage: StorageServer, emulator: Emulator, active: Callable[[], VertexModelRegistry], artifact: Path
) -> None:
    """A staging bucket that doesn't exist, or isn't valid, is one line, and nothing is registered."""
    del storage
    for bucket, said in (("gs://nobodys", "nobodys"), ("models", "gs://")):
        zenml.use(staging_bucket=bucket)
        with pytest.raises(RuntimeError, match=said):
            active().register_model_version("iris", "1", str(artifact))
    assert "UploadModel" not in {request.rpc for request in emulator.requests()}


def test_a_staging_bucket_of_one_call(
    zenml: ZenML, storage: StorageServer, emulator: Emulator, active: Callable[[], VertexModelRegistry], artifact: Path
) -> None:
    """A staging bucket that you pass is used instead of the component's, or if the component has none."""
    del emulator
    for settings in ({}, {"staging_bucket": "gs://nobodys"}):
        zenml.use(**settings)
        version = active().register_model_version("iris", "1", str(artifact), staging_bucket="gs://guide/of-one-call/")

        assert version.model_source_uri.startswith("gs://guide/of-one-call/")
        assert len(active().list_model_versions("iris")) == 1
    assert any(name.startswith("of-one-call/") for name in storage.names("guide"))


def test_a_staging_bucket_is_part_of_the_source(staging: VertexModelRegistry, artifact: Path) -> None:
    """The same artifact in another staging bucket is another version."""
    staging.register_model_version("iris", "1", str(artifact))
    other = staging.register_model_version("iris", "1", str(artifact), staging_bucket="gs://guide")

    assert other.model_source_uri.startswith("gs://guide/")
    assert len(staging.list_model_versions("iris")) == 2


def test_an_image_with_a_gpu(staging: VertexModelRegistry, tmp_path: Path) -> None:
    """With ``gpu=True``, a staged artifact is checked for and served by the GPU image."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"graph")
    staging.register_model_version("iris", "1", str(tmp_path / "saved"), container="tensorflow", gpu=True)

    with RegistryClient() as client:
        container = client.get_version("iris", version_name="1").container
    assert container is not None
    assert "tf2-gpu." in container.image


@pytest.mark.parametrize(
    "wrong",
    [
        {"stage": "Shadow"},
        {"version": "v" * 129},
        {"aliases": ["v1.0"]},
        {"metadata": {"when": object()}},
        {"metadata": incompressible(70)},
        {"container": "caffe"},
        {"gpu": True},
        {"staging_bucket": "models"},
    ],
    ids="-".join,
)
def test_nothing_is_copied_for_a_wrong_argument(
    staging: VertexModelRegistry,
    artifact: Path,
    storage: StorageServer,
    wrong: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    """All arguments are checked before a local artifact is copied to the bucket."""
    before = storage.names("staging")
    given = {"name": request.node.name, "version": "1", "model_source_uri": str(artifact), **wrong}
    with pytest.raises(RuntimeError):
        staging.register_model_version(**given)

    assert storage.names("staging") == before


@pytest.mark.parametrize("setting", ["staging_bucket", "serving_image"])
def test_a_missing_secret(
    zenml: ZenML,
    storage: StorageServer,
    emulator: Emulator,
    active: Callable[[], VertexModelRegistry],
    artifact: Path,
    setting: str,
) -> None:
    """A missing secret is a RuntimeError of one line, and nothing is sent."""
    del storage
    zenml.use(**{"staging_bucket": "gs://staging/models", setting: "{{nowhere.key}}"})
    for source in (str(artifact), "gs://models/1"):
        with pytest.raises(RuntimeError, match="can't be used: .*nowhere does not exist") as refused:
            active().register_model_version("iris", "1", source)
        assert not isinstance(refused.value, KeyError)
    assert not emulator.requests()


def test_messages_name_the_source(staging: VertexModelRegistry, tmp_path: Path, storage: StorageServer) -> None:
    """Messages name the artifact as you did, not a temporary folder."""
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "notes.txt").write_text("no model", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    storage.put("models", "notes/notes.txt", b"no model")
    for source in (str(tmp_path / "wrong"), str(tmp_path / "empty"), "gs://models/notes"):
        with pytest.raises(RuntimeError) as refused:
            staging.register_model_version("iris", "1", source)
        assert source in str(refused.value)
        assert "vertex-registry-" not in str(refused.value)
        assert "doesn't exist" not in str(refused.value)


def test_a_file_as_the_source(staging: VertexModelRegistry, artifact: Path, emulator: Emulator) -> None:
    """A file is refused, and the message says what to name instead."""
    with pytest.raises(RuntimeError, match=r"artifact.pkl' isn't a directory, .* Name the directory that"):
        staging.register_model_version("iris", "1", str(artifact / "artifact.pkl"))
    assert "UploadModel" not in {request.rpc for request in emulator.requests()}


@pytest.mark.parametrize("others", [["model.joblib"], ["model.pkl"], ["model.joblib", "model.pkl"]], ids="-".join)
def test_several_models(
    staging: VertexModelRegistry, artifact: Path, storage: StorageServer, others: list[str]
) -> None:
    """If the folder holds another model too, ZenML's pickle isn't renamed, and the message names all of them."""
    for other in others:
        (artifact / other).write_bytes(b"another")
    before = storage.names("staging")
    with pytest.raises(RuntimeError) as refused:
        staging.register_model_version("iris", "1", str(artifact))

    message = str(refused.value)
    assert f"{artifact}' holds {' and '.join(['artifact.pkl', *others])}, and the" in message
    assert "so nothing was registered. Remove all but the one that is the model" in message
    assert "\n" not in message
    assert storage.names("staging") == before


def test_the_files_are_pickles(artifact: Path, model: Any) -> None:
    """The file that's renamed is a plain pickle, which the image can read without cloudpickle."""
    unpickled = pickle.loads((artifact / "artifact.pkl").read_bytes())  # noqa: S301  # it was written here

    assert type(unpickled) is type(model)
