"""From a folder to a registered version, and back, with a real storage server and the emulator."""

from __future__ import annotations

import contextlib
import datetime as dt
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud import aiplatform
from sklearn.linear_model import LogisticRegression

from tests.artifacts.tools import write
from vertex_registry import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    LocalRegistry,
    NotFoundError,
    PermissionDeniedError,
    RegistryClient,
    Retry,
    ServingContainer,
    UnavailableError,
)
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.storage.server import Store

SOURCE = "gs://models/churn/1"
OWN = "us-docker.pkg.dev/acme/serving/churn:7"


@pytest.fixture
def emulator(store: Store) -> Iterator[Emulator]:
    folders = {} if store.folder is None else {store.bucket: store.folder}
    with Emulator(storage=store.server.url, folders=folders) as emulator:
        yield emulator


@pytest.fixture
def connect(emulator: Emulator, store: Store) -> Iterator[Callable[..., RegistryClient]]:
    made: list[RegistryClient] = []

    def connect(**settings: Any) -> RegistryClient:
        settings = {"staging_bucket": f"gs://{store.bucket}", "endpoint": emulator.grpc} | settings
        if store.folder is None:
            made.append(RegistryClient(**settings))
        else:
            made.append(LocalRegistry(emulator, store.folder, **settings))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RegistryClient]]:
    """Return a function that connects to a Vertex that doesn't check buckets."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with Emulator() as emulator, contextlib.ExitStack() as made:
        yield lambda **settings: made.enter_context(RegistryClient(endpoint=emulator.grpc, **settings))


@pytest.fixture
def registry(connect: Callable[..., RegistryClient]) -> RegistryClient:
    return connect()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with a model that scikit-learn 1.6 could have written."""
    folder = tmp_path / "model"
    (folder / "assets").mkdir(parents=True)
    (folder / "model.joblib").write_bytes(b"not one that says who wrote it" * 100)
    (folder / "assets" / "notes.txt").write_text("read me")
    return folder


def test_a_folder(registry: RegistryClient, store: Store, model: Path) -> None:
    """A folder is uploaded under the model's ID and the digest of its content, and registered from there."""
    version = registry.register_version("churn", model, container=OWN)

    scheme, model_id, digest = version.artifact_uri.rsplit("/", 2)
    assert scheme == f"gs://{store.bucket}"
    assert model_id == version.model_resource_name.rpartition("/")[2]
    assert store.names() == [
        f"{model_id}/{digest}/assets/notes.txt",
        f"{model_id}/{digest}/model.joblib",
    ]


def test_a_zenml_folder(registry: RegistryClient, store: Store, tmp_path: Path) -> None:
    """ZenML's pickle is uploaded under the name that the image loads. The folder on this machine stays as it is."""
    (tmp_path / "artifact.pkl").write_bytes(b"a pickle of no estimator")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "litter.pyc").write_bytes(b"x")
    served = registry.register_version("churn", tmp_path, container="sklearn")
    (tmp_path / "__pycache__" / "more.pyc").write_bytes(b"x")
    raw = registry.upload(tmp_path, name="churn", container=OWN)

    prefix = f"gs://{store.bucket}/"
    assert store.names() == sorted(
        [f"{served.artifact_uri.removeprefix(prefix)}/model.pkl", f"{raw.removeprefix(prefix)}/artifact.pkl"]
    )
    assert registry.upload(tmp_path, name="churn", container="sklearn") == served.artifact_uri
    assert (tmp_path / "artifact.pkl").exists()


def test_an_xgboost_folder_of_mlflows(registry: RegistryClient, store: Store, tmp_path: Path) -> None:
    """The version of XGBoost chooses the image, which finds the file that it loads. MLflow's own files stay."""
    files = {"MLmodel": b"flavors: {xgboost: {data: model.ubj, xgb_version: 2.0.3}}", "model.ubj": b"a booster"}
    folder = write(tmp_path / "model", files)
    served = registry.register_version("churn", folder)
    raw = registry.upload(folder, name="churn", container=OWN)

    assert served.container == ServingContainer("us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-0:latest")
    prefix = f"gs://{store.bucket}/"
    assert store.names() == sorted(
        f"{uri.removeprefix(prefix)}/{name}"
        for uri, names in ((served.artifact_uri, [*files, "model.bst"]), (raw, files))
        for name in names
    )
    assert (registry.download_version("churn", 1, tmp_path / "copy") / "model.bst").read_bytes() == b"a booster"


def test_mlflow_folders_that_no_prebuilt_image_serves(registry: RegistryClient, store: Store, tmp_path: Path) -> None:
    """Nothing is uploaded unless the caller names a container."""
    files = {"MLmodel": b"flavors: {python_function: {}}", "python_model.pkl": b"x"}
    folder = write(tmp_path / "model", files)
    with pytest.raises(
        InvalidArgumentError, match="no prebuilt image for an MLflow model of the flavor python_function"
    ):
        registry.register_version("churn", folder)
    assert store.names() == []

    assert registry.register_version("churn", folder, container=OWN).version == "1"


def test_a_skops_file_that_cannot_be_converted(registry: RegistryClient, store: Store, tmp_path: Path) -> None:
    """A model of another scikit-learn version isn't converted. The message says why."""
    settings = b"pickled_model: model.skops, serialization_format: skops, sklearn_version: 1.5.2"
    folder = write(tmp_path / "model", {"MLmodel": b"flavors: {sklearn: {%s}}" % settings, "model.skops": b"x"})
    with pytest.raises(InvalidArgumentError) as refused:
        registry.register_version("churn", folder)

    assert "holds model.skops, which the image can't load, and it couldn't be converted" in str(refused.value)
    assert store.names() == []


def test_a_folder_is_registered_once_under_a_version_name(registry: RegistryClient, model: Path) -> None:
    """With ``reuse_existing`` the same content returns the existing version, and other content makes a new one."""
    given: dict[str, Any] = {"container": OWN, "version_name": "1", "reuse_existing": True}
    first = registry.register_version("churn", model, **given)
    assert registry.register_version("churn", model, **given) == first
    (model / "assets" / "notes.txt").write_text("read me again")

    assert registry.register_version("churn", model, **given).version == "2"


def test_the_same_bytes_are_not_sent_twice(registry: RegistryClient, store: Store, model: Path) -> None:
    """The same content has the same URI and isn't uploaded again. Other content has another URI."""
    first = registry.register_version("churn", model, container=OWN, request_id="run")
    assert registry.register_version("churn", str(model), container=OWN, request_id="run") == first
    assert registry.upload(model, name="churn", container=OWN) == first.artifact_uri
    assert len(store.names()) == 2
    (model / "assets" / "notes.txt").write_text("read me again")
    with pytest.raises(ConflictError, match="another source"):
        registry.register_version("churn", model, container=OWN, request_id="run")
    assert registry.register_version("churn", model, container=OWN).artifact_uri != first.artifact_uri
    assert len(store.names()) == 4


def test_a_bucket_named_for_once(connect: Callable[..., RegistryClient], store: Store, model: Path) -> None:
    """You can name a staging bucket in the call, with a directory. Without one, the error says what to do."""
    registry = connect(staging_bucket=None)
    version = registry.register_version("churn", model, container=OWN, staging_bucket=f"gs://{store.bucket}/ours/")

    assert version.artifact_uri.startswith(f"gs://{store.bucket}/ours/churn-")
    with pytest.raises(InvalidArgumentError, match="staging_bucket"):
        registry.register_version("churn", model, container=OWN)
    with pytest.raises(InvalidArgumentError, match="bucket"):
        registry.register_version("churn", model, container=OWN, staging_bucket=store.bucket)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "or a path, not NoneType"),
        (b"model", "not bytes"),
        ("", "The source is empty"),
        ("s3://models/churn", "isn't in Cloud Storage"),
    ],
)
def test_an_invalid_source_is_refused(registry: RegistryClient, source: Any, says: str) -> None:
    """The error for an invalid source says what it is, in every method."""
    for action in (
        lambda: registry.register_version("churn", source, container=OWN),
        lambda: registry.upload(source, name="churn"),
        lambda: registry.download(source),
    ):
        with pytest.raises(InvalidArgumentError, match=says):
            action()


@pytest.mark.parametrize("uri", ["model", "file:///tmp/model"])
def test_a_local_folder_is_not_downloaded(registry: RegistryClient, tmp_path: Path, uri: str) -> None:
    """The error for downloading a local folder doesn't suggest uploading it."""
    with pytest.raises(InvalidArgumentError, match=f"'{uri}' isn't in Cloud Storage") as caught:
        registry.download(uri, tmp_path / "dest")

    assert "staging_bucket" not in str(caught.value)


@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_folder_may_be_a_url(registry: RegistryClient, model: Path, host: str) -> None:
    """A ``file://`` URL with a staging bucket is the folder that it names, escapes and all."""
    folder = model.rename(model.with_name("größe #1 50%"))
    url = folder.as_uri().replace("file://", f"file://{host}")

    assert registry.upload(url, name="churn", container=OWN) == registry.upload(folder, name="churn", container=OWN)
    version = registry.register_version("churn", url, container=OWN)
    assert version.artifact_uri == registry.upload(folder, name="churn", container=OWN)


@pytest.mark.parametrize("url", ["file://elsewhere/model", "file://model"])
def test_a_url_of_another_machine_is_refused(registry: RegistryClient, url: str) -> None:
    """A ``file://`` URL with a host, or with only two slashes, is refused, and the error shows the right form."""
    with pytest.raises(InvalidArgumentError, match="three slashes"):
        registry.upload(url, name="churn")


def test_a_url_of_a_folder_needs_a_staging_bucket(connect: Callable[..., RegistryClient], model: Path) -> None:
    """Without a staging bucket the error for a ``file://`` URL names it."""
    registry = connect(staging_bucket=None)
    with pytest.raises(InvalidArgumentError, match="staging_bucket="):
        registry.register_version("churn", model.as_uri(), container=OWN)


def test_links_out_of_a_folder_are_an_opt_in(registry: RegistryClient, model: Path, tmp_path: Path) -> None:
    """A link that leads out of the folder is refused unless the caller passes follow_links=True."""
    (tmp_path / "secret.txt").write_text("secret")
    (model / "vocab.txt").symlink_to(tmp_path / "secret.txt")
    for action in (
        lambda: registry.register_version("churn", model, container=OWN),
        lambda: registry.upload(model, name="churn", container=OWN),
    ):
        with pytest.raises(InvalidArgumentError, match=r"vocab\.txt' is a link .* follow_links=True"):
            action()

    version = registry.register_version("churn", model, container=OWN, follow_links=True)
    assert registry.upload(model, name="churn", container=OWN, follow_links=True) == version.artifact_uri
    assert (registry.download_version("churn", 1, tmp_path / "down") / "vocab.txt").read_text() == "secret"


@pytest.mark.parametrize("written", ["/", "//", "/ours", "/ours/", "/ours/of today//"])
def test_object_names_have_no_empty_part(registry: RegistryClient, store: Store, model: Path, written: str) -> None:
    """Objects have the expected names, however you write the staging bucket."""
    version = registry.register_version("churn", model, container=OWN, staging_bucket=f"gs://{store.bucket}{written}")

    assert version.artifact_uri.startswith(f"gs://{store.bucket}{written.rstrip('/')}/churn-")
    assert all("" not in name.split("/") for name in store.names())


@pytest.mark.parametrize("written", ["//ours", "/ours//today"])
def test_a_staging_bucket_with_an_empty_part_is_refused(
    connect: Callable[..., RegistryClient], store: Store, written: str
) -> None:
    """A mistake in the middle of the staging bucket is reported when you pass it, before anything is sent."""
    with pytest.raises(InvalidArgumentError, match="empty part between two slashes"):
        connect(staging_bucket=f"gs://{store.bucket}{written}")


def test_nothing_is_registered_before_the_upload_is_complete(
    registry: RegistryClient, emulator: Emulator, model: Path, tmp_path: Path
) -> None:
    """Without the bucket or the folder, no version and no model is created."""
    with pytest.raises(NotFoundError, match="no-such-bucket"):
        registry.register_version("churn", model, container=OWN, staging_bucket="gs://no-such-bucket")
    with pytest.raises(InvalidArgumentError, match="nowhere"):
        registry.register_version("churn", tmp_path / "nowhere", container=OWN)

    assert "UploadModel" not in {request.rpc for request in emulator.requests()}


@pytest.mark.parametrize("container", [None, "sklearn", "xgboost:2.1", "tensorflow", "pytorch"])
def test_a_folder_that_the_image_cannot_load(
    registry: RegistryClient, emulator: Emulator, tmp_path: Path, container: str | None
) -> None:
    """A folder without the file that the prebuilt image loads is refused before anything is sent."""
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(InvalidArgumentError, match=r"model\.|saved_model"):
        registry.register_version("churn", tmp_path, container=container)

    assert not emulator.requests()


def test_two_files_are_one_too_many(registry: RegistryClient, model: Path) -> None:
    """Vertex requires exactly one of the files, so two are refused."""
    (model / "model.pkl").write_bytes(b"x")
    with pytest.raises(InvalidArgumentError, match="exactly one"):
        registry.register_version("churn", model, container="sklearn")


def test_a_directory_in_a_bucket(registry: RegistryClient, emulator: Emulator, store: Store) -> None:
    """A gs:// directory is checked too, unless you turn that off. Then Vertex refuses it."""
    store.put("models/1/weights.bin", b"x")
    store.put("models/2/model.joblib", b"x")
    assert registry.register_version("churn", f"gs://{store.bucket}/models/2", container="sklearn").version == "1"
    with pytest.raises(InvalidArgumentError, match="model.joblib"):
        registry.register_version("churn", f"gs://{store.bucket}/models/1", container="sklearn")
    with pytest.raises(InvalidArgumentError, match="is empty"):
        registry.register_version("churn", f"gs://{store.bucket}/models/3", container="sklearn")
    with pytest.raises(InvalidArgumentError, match="is empty"):
        registry.register_version("churn", f"gs://{store.bucket}/models/3", container=OWN, check_source=True)
    assert registry.register_version("churn", f"gs://{store.bucket}/models/1", container=OWN).version == "2"
    uploads = sum(request.rpc == "UploadModel" for request in emulator.requests())
    with pytest.raises(ConflictError, match="expected to contain exactly one of"):
        registry.register_version("churn", f"gs://{store.bucket}/models/1", container="sklearn", check_source=False)
    assert sum(request.rpc == "UploadModel" for request in emulator.requests()) == uploads + 1


def test_without_a_storage_emulator(blind: Callable[..., RegistryClient]) -> None:
    """If only Vertex is emulated, storage isn't checked."""
    assert blind().register_version("churn", "gs://no-such-bucket/model", container="sklearn").version == "1"


@pytest.mark.parametrize(
    ("container", "gpu", "image"),
    [
        ("sklearn", False, "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"),
        ("sklearn:1.5", False, "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest"),
        ("xgboost:2.1", False, "us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest"),
        (OWN, False, OWN),
        (ServingContainer(OWN, ports=[8080]), False, OWN),
    ],
)
def test_containers(
    blind: Callable[..., RegistryClient], container: str | ServingContainer, gpu: bool, image: str
) -> None:
    """A framework's name chooses the image near the location. A URI and a container are used as they are."""
    version = blind().register_version("churn", SOURCE, container=container, gpu=gpu)

    assert version.container is not None
    assert version.container.image == image


def test_images_for_a_gpu(blind: Callable[..., RegistryClient]) -> None:
    """gpu=True chooses the image for GPUs, or the error says that none exists."""
    registry = blind(location="europe-west4")
    version = registry.register_version("churn", SOURCE, container="pytorch", gpu=True)
    assert version.container is not None
    assert version.container.image.startswith("europe-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.")
    with pytest.raises(InvalidArgumentError, match="GPU"):
        registry.register_version("churn", SOURCE, container="sklearn", gpu=True)


def test_an_unsupported_image(blind: Callable[..., RegistryClient]) -> None:
    """An image that Google no longer supports causes a warning."""
    registry = blind(now=lambda: dt.datetime(2026, 11, 24, tzinfo=dt.UTC))
    with pytest.warns(UserWarning, match="Google hasn't supported .* since"):
        registry.register_version("churn", SOURCE, container="sklearn:1.3")


def test_the_image_follows_the_model(registry: RegistryClient, tmp_path: Path) -> None:
    """A model that a known scikit-learn version wrote gets its image, or a warning that there's none."""
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "model.joblib")
    with pytest.warns(UserWarning, match="no serving image for scikit-learn 1"):
        registry.register_version("churn", tmp_path)
    path = tmp_path / "model.joblib"
    path.write_bytes(as_of(path.read_bytes(), "1.5.2"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        version = registry.register_version("churn", tmp_path)
    assert version.container is not None
    assert version.container.image.endswith("sklearn-cpu.1-5:latest")


def test_a_second_run_whose_artifact_is_gone(registry: RegistryClient, store: Store) -> None:
    """The same request ID returns its version, even if the artifact is gone."""
    store.put("models/1/model.joblib", b"x")
    source = f"gs://{store.bucket}/models/1"
    made = registry.register_version("churn", source, container="sklearn", request_id="run")
    store.delete("models/1/model.joblib")

    assert registry.register_version("churn", source, container="sklearn", request_id="run") == made
    with pytest.raises(InvalidArgumentError, match="is empty"):
        registry.register_version("churn", source, container="sklearn", request_id="run-2")


def test_a_gpu_beside_a_container(blind: Callable[..., RegistryClient]) -> None:
    """gpu=True and your own container contradict each other."""
    with pytest.raises(InvalidArgumentError, match="gpu"):
        blind().register_version("churn", SOURCE, container=ServingContainer(OWN), gpu=True)


@pytest.mark.parametrize("gpu", [False, True])
def test_an_empty_container(blind: Callable[..., RegistryClient], *, gpu: bool) -> None:
    """An empty container is more likely an unset variable than the default, so it's refused."""
    with pytest.raises(InvalidArgumentError, match="There's no prebuilt serving image ''"):
        blind().register_version("churn", SOURCE, container="", gpu=gpu)


def test_unreachable_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The automatic check is skipped without access; a requested one fails."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with (
        Emulator(storage="") as vertex,
        RegistryClient(
            endpoint=vertex.grpc, retry=Retry(call_timeout=9, initial_backoff=9, max_backoff=9, random=lambda: 1.0)
        ) as registry,
    ):
        assert registry.register_version("churn", SOURCE, container="sklearn").version == "1"
        with pytest.raises(UnavailableError):
            registry.register_version("churn", SOURCE, container="sklearn", check_source=True)


def test_upload_and_download(registry: RegistryClient, model: Path, tmp_path: Path) -> None:
    """A download has what was uploaded. A second one to the same folder is refused, and the cache is kept."""
    registry.register_version("churn", model, container=OWN, version_name="1.0")
    folder = registry.download_version("churn", 1, tmp_path / "down")

    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == [Path("assets/notes.txt"), Path("model.joblib")]
    assert all((folder / file).read_bytes() == (model / file).read_bytes() for file in files)
    with pytest.raises(AlreadyExistsError):
        registry.download_version("churn", 1, tmp_path / "down")
    with pytest.raises(NotFoundError):
        registry.download_version("churn", 2, tmp_path / "other")
    assert registry.download(registry.get_version("churn").artifact_uri, tmp_path / "again").name == "again"


def test_a_version_without_an_artifact(registry: RegistryClient, tmp_path: Path) -> None:
    """Other tools register versions without an artifact. Downloading one is an error that says so."""
    registry.register_version("churn", SOURCE, container=OWN)
    theirs = registry.to_aiplatform("churn").api_client  # Google's client, already connected
    bare = {"display_name": "bare", "container_spec": {"image_uri": OWN}}
    theirs.upload_model(parent="projects/local-project/locations/us-central1", model=bare).result()
    with pytest.raises(NotFoundError, match="Version 1 of 'bare' was registered without an artifact"):
        registry.download_version("bare", 1, tmp_path / "down")

    assert not (tmp_path / "down").exists()


def test_the_cache(registry: RegistryClient, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a destination, an artifact is downloaded to a cache, and the same content to the same folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry.register_version("churn", model, container=OWN, version_name="1.0")
    folder = registry.download_version("churn", version_name="1.0")

    assert folder.is_relative_to(tmp_path / "cache")
    assert registry.download_version("churn") == folder


def test_loading(registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model loads as the object that was saved, if you trust its author."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    trained = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    joblib.dump(trained, tmp_path / "model" / "model.joblib")
    registry.register_version("churn", tmp_path / "model", container="sklearn")

    assert (registry.load_version("churn", trusted=True).coef_ == trained.coef_).all()
    with pytest.raises(InvalidArgumentError, match="trusted=True"):
        registry.load_version("churn")


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_model_of_googles_sdk(connect: Callable[..., RegistryClient], emulator: Emulator, transport: str) -> None:
    """You can pass a version to Google's SDK, which gets exactly that version. Its global state doesn't change."""
    registry = connect(endpoint=emulator.rest if transport == "rest" else emulator.grpc, project="acme")
    for number in (1, 2):
        registry.register_version("churn", f"gs://models/churn/{number}", container=OWN, stage="Staging")
    before = dict(vars(aiplatform.initializer.global_config))
    model = registry.to_aiplatform("churn", 1)

    assert isinstance(model, aiplatform.Model)
    assert (model.version_id, model.uri, model.display_name) == ("1", "gs://models/churn/1", "churn")
    assert model.location == "us-central1"
    assert model.labels == registry.get_version("churn", 1).labels
    assert (model.labels["managed_by"], model.labels["stage"]) == ("zenml", "staging")
    assert [info.version_id for info in model.versioning_registry.list_versions()] == ["1", "2"]
    model.versioning_registry.add_version_aliases(["blue"], "2")
    assert registry.get_version("churn", "blue").version == "2"
    assert vars(aiplatform.initializer.global_config) == before
    model.update(description="from Google's SDK")
    assert registry.get_model("churn").description == "from Google's SDK"


def test_googles_sdk_deploys(connect: Callable[..., RegistryClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """To create an endpoint, Google's SDK calls Vertex itself, not the emulator. If it can't, it fails immediately.

    Its requests go to a proxy that doesn't exist, so nothing leaves the machine.
    """
    registry = connect()
    registry.register_version("churn", SOURCE, container=OWN)
    model = registry.to_aiplatform("churn")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailable, match="127.0.0.1:9"):
        model.deploy(machine_type="n1-standard-2")


def test_an_interrupted_registration(registry: RegistryClient, emulator: Emulator, store: Store, model: Path) -> None:
    """If Vertex refuses after the upload, nothing is registered, and a second run uploads nothing again."""
    emulator.fail("ListModels", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version("churn", model, container=OWN)
    generations = store.state()
    assert len(store.names()) == 2

    assert registry.register_version("churn", model, container=OWN).version == "1"
    assert store.state() == generations


def as_of(pickled: bytes, version: str) -> bytes:
    """Return a pickle as this version of scikit-learn would write it."""
    at = pickled.index(b"_sklearn_version")
    start = pickled.index(b"\x8c", at + len(b"_sklearn_version"))
    length = pickled[start + 1]
    return pickled[:start] + b"\x8c" + bytes([len(version)]) + version.encode() + pickled[start + 2 + length :]
