"""A local registry stores artifacts without any extra, for every process that uses it."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import InvalidArgumentError, NotFoundError, RegistryClient, local_registry

if TYPE_CHECKING:
    from vertex_registry import LocalRegistry

OWN = "us-docker.pkg.dev/acme/serving/churn:7"
BUCKET = "gs://artifacts.localhost"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the storage server, and use the test's own cache folder."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "assets").mkdir(parents=True)
    (folder / "model.joblib").write_bytes(b"a model")
    (folder / "assets" / "notes.txt").write_text("notes")
    return folder


def test_nothing_else_is_installed(model: Path, tmp_path: Path) -> None:
    """You can register, download and load without google-cloud-storage and the rest of the extra."""
    code = (
        "import pickle, sys, warnings; from pathlib import Path\n"
        "for name in ('google.cloud.storage', 'google_crc32c', 'tqdm'): sys.modules[name] = None\n"
        "from vertex_registry import _deferred, local_registry; _deferred.defer_packages()\n"
        "folder = Path(sys.argv[1]); (folder / 'model.joblib').unlink()\n"
        "(folder / 'model.pkl').write_bytes(pickle.dumps({'a': 1}))\n"
        "with local_registry() as registry:\n"
        "    version = registry.register_version('churn', str(folder), container='sklearn')\n"
        "    print(registry.download_version('churn', 1, sys.argv[2]).name)\n"
        "    print(registry.load_version('churn', trusted=True))\n"
        "assert 'google.cloud.storage' not in {name for name, module in sys.modules.items() if module}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, model, tmp_path / "dest"], capture_output=True, text=True, check=False, timeout=60
    )

    assert ended.stderr == ""
    assert ended.stdout == "dest\n{'a': 1}\n"


def test_artifacts_are_next_to_the_file(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts are in a folder next to the data file, and still there when you open it again."""
    monkeypatch.chdir(tmp_path)
    with local_registry("registry.db") as registry:
        monkeypatch.chdir("/")
        version = registry.register_version("churn", model, container=OWN)
        assert registry.artifacts == tmp_path / "registry.db.artifacts"
    with local_registry(tmp_path / "registry.db") as registry:
        downloaded = registry.download_version("churn", 1, tmp_path / "dest")

    assert version.artifact_uri.startswith(f"{BUCKET}/churn-")
    assert (downloaded / "assets" / "notes.txt").read_text() == "notes"
    assert (tmp_path / "registry.db.artifacts" / version.artifact_uri.removeprefix(f"{BUCKET}/")).is_dir()


def test_the_folder_can_be_named(model: Path, tmp_path: Path) -> None:
    """You can name the folder, for a registry in memory too. Then it stays."""
    with local_registry(artifacts=tmp_path / "ours" / "artifacts") as registry:
        uri = registry.register_version("churn", model, container=OWN).artifact_uri

    with local_registry(artifacts=str(tmp_path / "ours" / "artifacts")) as registry:
        assert (registry.download(uri, tmp_path / "dest") / "model.joblib").read_bytes() == b"a model"


@pytest.mark.parametrize(
    ("artifacts", "says"),
    [
        ("", "isn't the path of a folder"),
        (5, "isn't the path of a folder"),
        ("a\0b", "isn't the path of a folder"),
        ("gs://models", "pass it as staging_bucket="),
        (__file__, "is a file. Name a folder"),
        ("/", "is the root of a file system"),
        ("/usr/..", "is the root of a file system"),
        ("~", "is your home folder"),
    ],
)
def test_an_invalid_folder_is_refused(artifacts: Any, says: str) -> None:
    """What can't be a folder is refused before anything starts."""
    with pytest.raises(InvalidArgumentError, match=says):
        local_registry(artifacts=artifacts)


def test_nothing_is_downloaded_into_it(model: Path, tmp_path: Path) -> None:
    """A destination in the artifacts folder, also through a link, is refused before anything is requested."""
    with local_registry(artifacts=tmp_path / "artifacts") as registry:
        uri = registry.register_version("churn", model, container=OWN).artifact_uri
        (tmp_path / "link").symlink_to(tmp_path / "artifacts")
        before = len(registry.emulator.requests())
        for inside in (registry.artifacts, registry.artifacts / "copy", tmp_path / "link" / "copy"):
            with pytest.raises(InvalidArgumentError, match="own artifacts folder"):
                registry.download_version("churn", 1, inside)
            with pytest.raises(InvalidArgumentError, match="own artifacts folder"):
                registry.download(uri, inside)
        with pytest.raises(InvalidArgumentError, match="isn't a path"):
            registry.download_version("churn", 1, "")

        assert len(registry.emulator.requests()) == before
        assert registry.download(uri, tmp_path / "artifacts-2").is_dir()


def test_a_temporary_folder_ends_with_its_registry(model: Path) -> None:
    """In memory, artifacts are removed when the registry is closed or collected. Nothing is created without need."""
    with local_registry() as unused:
        assert not unused.artifacts.exists()
    registry = local_registry()
    registry.register_version("churn", model, container=OWN)
    folder = registry.artifacts
    assert folder.is_dir()
    registry.close()
    registry.close()
    assert not folder.exists()

    forgotten = local_registry()
    forgotten.register_version("churn", model, container=OWN)
    folder = forgotten.artifacts
    forgotten.emulator.close()
    del forgotten
    gc.collect()
    assert not folder.exists()


def test_a_temporary_folder_ends_with_its_process(model: Path) -> None:
    """A script that closes nothing leaves nothing behind."""
    code = (
        "import sys; from vertex_registry import _deferred, local_registry; _deferred.defer_packages()\n"
        "registry = local_registry(); registry.register_version('churn', sys.argv[1], container='a/b')\n"
        "print(registry.artifacts, registry.artifacts.is_dir())"
    )
    ended = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True, timeout=60)
    path, existed = ended.stdout.split()

    assert existed == "True"
    assert not Path(path).exists()


def work(registry: RegistryClient, model: Path, destination: Path) -> None:
    """Download what the parent registered, and register another version."""
    registry.download_version("churn", 1, destination)
    (model / "model.joblib").write_bytes(b"another model")
    registry.register_version("churn", model, container=OWN)
    registry.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_finds_the_folder(method: str, model: Path, tmp_path: Path) -> None:
    """A forked and a pickled registry use the same folder, and leave its removal to the parent."""
    with local_registry() as registry:
        registry.register_version("churn", model, container=OWN)
        context: Any = multiprocessing.get_context(method)
        worker = context.Process(target=work, args=(registry, model, tmp_path / "dest"))
        worker.start()
        worker.join(120)
        assert worker.exitcode == 0

        assert (tmp_path / "dest" / "model.joblib").read_bytes() == b"a model"
        again = registry.download_version("churn", 2, tmp_path / "again")
        assert (again / "model.joblib").read_bytes() == b"another model"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_child_that_ends_normally_removes_nothing(model: Path) -> None:
    """A forked child that leaves through sys.exit runs its parent's finalizers, and the folder stays."""
    with local_registry() as registry:
        registry.register_version("churn", model, container=OWN)
        if not (child := os.fork()):
            try:
                registry.close()
            finally:
                atexit._run_exitfuncs()
                os._exit(0)
        os.waitpid(child, 0)

        assert registry.download_version("churn").is_dir()


def test_a_copy_is_a_client_of_the_same_folder(model: Path, tmp_path: Path) -> None:
    """A pickled registry finds its artifacts, and closing it removes none."""
    with local_registry() as registry:
        copy: LocalRegistry = pickle.loads(pickle.dumps(registry))  # noqa: S301  # it was pickled here
        uri = copy.register_version("churn", model, container=OWN).artifact_uri
        copy.close()

        assert uri.startswith(BUCKET)
        assert registry.download(uri, tmp_path / "dest").is_dir()


def test_another_client_says_where_it_is(model: Path, tmp_path: Path) -> None:
    """Another client of the same emulator sees the version. Its error says who has the artifact."""
    with local_registry() as registry, RegistryClient(endpoint=registry.emulator.grpc) as other:
        registry.register_version("churn", model, container=OWN)
        with pytest.raises(NotFoundError, match="artifacts folder of a local registry"):
            other.download_version("churn", 1, tmp_path / "dest")


def test_other_buckets_still_work(model: Path) -> None:
    """URIs of Cloud Storage are registered as usual, and nothing is checked there."""
    with local_registry() as registry:
        assert registry.register_version("churn", "gs://models/churn/1").artifact_uri == "gs://models/churn/1"
        registry.register_version("churn", model, container=OWN)

        assert [version.artifact_uri[:12] for version in registry.list_versions("churn")] == [
            BUCKET[:12],
            "gs://models/",
        ]


def test_googles_sdk_takes_the_uri(model: Path) -> None:
    """Google's own client registers and reads such a URI like any other."""
    with local_registry() as registry:
        version = registry.register_version("churn", model, container=OWN)
        sdk = registry.to_aiplatform("churn")
        assert sdk.uri == version.artifact_uri
        again = {"display_name": "again", "artifact_uri": version.artifact_uri, "container_spec": {"image_uri": OWN}}
        parent = "projects/local-project/locations/us-central1"
        sdk.api_client.upload_model(parent=parent, model=again).result()

        assert registry.download_version("again").is_dir()


def test_the_directory_is_checked(model: Path) -> None:
    """A source in the folder is checked before it's registered, without a storage server."""
    with local_registry() as registry:
        uri = registry.upload(model, name="churn", container=OWN)
        assert registry.register_version("churn", uri, container="sklearn").version == "1"
        with pytest.raises(InvalidArgumentError, match="is empty"):
            registry.register_version("churn", f"{BUCKET}/nowhere", container="sklearn")
        with pytest.raises(InvalidArgumentError, match="lead out"):
            registry.register_version("churn", f"{BUCKET}/../x", container="sklearn")
        with pytest.raises(InvalidArgumentError, match="saved_model"):
            registry.register_version("churn", uri, container="tensorflow")


def test_a_model_folder_with_the_registry_in_it_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """You can't register the folder that contains the artifacts folder."""
    (tmp_path / "model.joblib").write_bytes(b"a model")
    monkeypatch.chdir(tmp_path)
    with local_registry("registry.db") as registry:
        for source in (".", tmp_path, tmp_path.as_uri()):
            with pytest.raises(InvalidArgumentError, match="holds this registry's own artifacts folder"):
                registry.register_version("churn", source, container=OWN)
        uri = registry.register_version("churn", model, container=OWN).artifact_uri
        stored = registry.artifacts / uri.removeprefix(f"{BUCKET}/")

        assert registry.register_version("churn", stored, container=OWN).artifact_uri == uri


def test_nothing_is_created_before_the_first_artifact(tmp_path: Path) -> None:
    """A registry of gs:// URIs only has no folder."""
    with local_registry(tmp_path / "registry.db") as registry:
        registry.register_version("churn", "gs://models/churn/1")
        assert not (tmp_path / "registry.db.artifacts").exists()
