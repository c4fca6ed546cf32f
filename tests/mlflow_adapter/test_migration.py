"""An MLflow registry is copied to Vertex: everything that can be kept is, and no version twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unicodedata
import urllib.request
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from vertex_registry import InvalidArgumentError, RegistryClient, RegistryError, local_registry
from vertex_registry.cli._commands import cli
from vertex_registry.cli._run import run
from vertex_registry.emulator import Emulator
from vertex_registry.migration import Outcome, _mapping, migrate_mlflow, plan_mlflow
from vertex_registry.mlflow import _FIELDS, VertexModelRegistryStore, to_distinct_alias, to_vertex_alias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storage.server import StorageServer
    from vertex_registry import LocalRegistry
    from vertex_registry.migration import MigrationReport

SKLEARN = "sklearn:1.6"
START = 120.0


@pytest.fixture
def source(sqlite_registry: str) -> mlflow.MlflowClient:
    """Return a client of an empty MLflow registry."""
    return mlflow.MlflowClient(sqlite_registry, sqlite_registry)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalRegistry]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with local_registry() as registry:
        yield registry


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Return the folder of a model that no framework wrote."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"a model")
    return str(folder)


def fill(source: mlflow.MlflowClient, name: str, model: str, count: int, **fields: Any) -> None:
    """Create a model with so many versions."""
    source.create_registered_model(name)
    for _ in range(count):
        source.create_model_version(name, model, **fields)


def uri_of(source: mlflow.MlflowClient) -> str:
    """Return the URI of the registry of a client."""
    return str(source._registry_uri)


def stage(source: mlflow.MlflowClient, name: str, number: int, stage: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
        source.transition_model_version_stage(name, str(number), stage)


def migrate(registry: RegistryClient, source: mlflow.MlflowClient, **options: Any) -> MigrationReport:
    return migrate_mlflow(registry, uri_of(source), container=SKLEARN, **options)


def outcomes(report: MigrationReport) -> list[str]:
    return [f"{line.model} {line.number}: {line.outcome}" for line in report.versions]


def names(registry: RegistryClient, name: str) -> list[str | None]:
    """Return the names of a model's versions, in Vertex's order."""
    return [version.version_name for version in registry.list_versions(name, oldest_first=True)]


# --- what is kept -----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NAMES = st.text(
    st.characters(categories=["Lu", "Ll", "Lo", "N", "Sm", "Sc"], include_characters=" ", exclude_characters="/:"),
    min_size=1,
    max_size=20,
).filter(lambda name: name.strip() == name and name.isprintable() and unicodedata.is_normalized("NFKC", name))
TAGS = st.dictionaries(
    st.one_of(st.sampled_from(["Team", "team", "stage", "managed_by", "mlflow-source"]), NAMES.filter(str.isalnum)),
    st.one_of(TEXT, st.sampled_from(["3.5", "None", "true", "x" * 5_000])),
    max_size=60,
)
VERSIONS = st.fixed_dictionaries(
    {
        "tags": TAGS,
        "description": TEXT,
        "run_link": st.sampled_from([None, "https://mlflow.example.com/#/runs/1?" + "q" * 400]),
        "stage": st.sampled_from(["None", "Staging", "Production", "Archived"]),
        "deleted": st.sampled_from([False, False, True]),
        "aliases": st.lists(
            st.sampled_from(["champion", "Champion", "CHAMPION", "Prod_Candidate", "2026", "größe", "a"]), max_size=3
        ),
    }
)
REGISTRIES = st.dictionaries(
    NAMES,
    st.fixed_dictionaries({"tags": TAGS, "description": TEXT, "versions": st.lists(VERSIONS, min_size=1, max_size=3)}),
    min_size=1,
    max_size=2,
)


@settings(max_examples=5)
@given(models=REGISTRIES)
def test_every_field_of_any_registry(empty_database: Path, tracking: str, models: dict[str, Any]) -> None:
    """What MLflow says about a version is on Vertex, for our client and for MLflow's through its store."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        (Path(folder) / "model" / "model.joblib").write_bytes(b"a model")
        uri = f"sqlite:///{shutil.copy(empty_database, Path(folder) / 'mlflow.db')}"
        source = mlflow.MlflowClient(tracking, uri)
        create(source, models, f"{folder}/model")

        with local_registry(f"{folder}/vertex.db") as registry:
            plan = plan_mlflow(registry, uri)
            report = migrate(registry, mlflow.MlflowClient(uri, uri))
            assert [line.lossy for line in plan.plan.versions] == [line.lossy for line in report.versions]
            for name in models:
                assert_equal(registry, source, name)
            again = migrate(registry, mlflow.MlflowClient(uri, uri))
            assert {line.outcome for line in again.versions if line.number} <= {Outcome.EXISTS}
            assert not any(line.reason for line in again.versions if line.number)
            in_files = {
                (version.name, version.version_name): version.metadata
                for version in registry.list_versions()
                if version.metadata_file is not None
            }
        compare_stores(source, f"vertex://local/{folder}/vertex.db", list(models), in_files)


def create(source: mlflow.MlflowClient, models: dict[str, Any], folder: str) -> None:
    """Create a registry, with its deleted versions."""
    for name, model in models.items():
        source.create_registered_model(name, tags=model["tags"], description=model["description"])
        for number, version in enumerate(model["versions"], start=1):
            source.create_model_version(
                name,
                folder,
                run_id="0123456789abcdef" * 2,
                tags=version["tags"],
                run_link=version["run_link"],
                description=version["description"],
            )
            stage(source, name, number, version["stage"])
            for alias in version["aliases"]:
                source.set_registered_model_alias(name, alias, str(number))
        for number, version in enumerate(model["versions"], start=1):
            if version["deleted"] and number > 1:
                source.delete_model_version(name, str(number))


def assert_equal(registry: RegistryClient, source: mlflow.MlflowClient, name: str) -> None:
    """Compare the versions of a model field by field."""
    theirs = sorted(source.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    aliases = source.get_registered_model(name).aliases
    assert names(registry, name) == [str(version.version) for version in theirs]
    for version in theirs:
        ours = registry.get_version(name, version_name=str(version.version))
        metadata = registry.get_metadata(name, ours)
        tags = {key.removeprefix("tag:"): value for key, value in metadata.items() if key not in _FIELDS}
        assert tags == version.tags
        assert ours.description == (version.description or "")
        assert str(ours.stage) == version.current_stage
        assert metadata["mlflow-source"] == version.source
        assert metadata["mlflow-run-id"] == version.run_id
        assert metadata.get("mlflow-run-link") == version.run_link
        assert metadata.get("mlflow-user-id") == version.user_id
        assert (metadata["mlflow-created"], metadata["mlflow-updated"]) == (
            version.creation_timestamp,
            version.last_updated_timestamp,
        )
        originals = metadata.get("mlflow-aliases", {})
        assert {originals.get(alias, alias) for alias in ours.aliases if alias != "default"} == {
            alias for alias, number in aliases.items() if int(number) == int(version.version)
        }


def compare_stores(source: mlflow.MlflowClient, uri: str, models: list[str], in_files: dict[Any, Any]) -> None:
    """Compare what MLflow says about its own registry and about the one on Vertex."""
    vertex = mlflow.MlflowClient(registry_uri=uri)
    for name in models:
        theirs, ours = source.get_registered_model(name), vertex.get_registered_model(name)
        assert (ours.name, ours.description or "", ours.tags) == (name, theirs.description or "", theirs.tags)
        for alias, number in theirs.aliases.items():
            assert int(vertex.get_model_version_by_alias(name, alias).version) == int(number)
        for version in source.search_model_versions(f"name = '{name}'"):
            copied = vertex.get_model_version(name, str(version.version))
            assert (copied.description or "", copied.current_stage) == (
                version.description or "",
                version.current_stage,
            )
            assert copied.creation_timestamp == version.creation_timestamp
            if (name, str(version.version)) not in in_files:
                assert (copied.run_id, copied.run_link, copied.source) == (
                    version.run_id,
                    version.run_link,
                    version.source,
                )
                assert {key.removeprefix("tag:"): value for key, value in copied.tags.items()} == version.tags
    VertexModelRegistryStore(uri).close()


def test_the_keys_are_those_of_the_store() -> None:
    """MLflow's store on Vertex takes every field that a migration writes for a field, and nothing else."""
    assert _mapping.FIELDS == _FIELDS


def test_no_two_aliases_of_a_model_become_one() -> None:
    """The one that needs no change keeps its place; the others get a suffix, which stays the same in each run."""
    mapped = _mapping.map_aliases(
        ["CHAMPION", "Champion", "champion", "Größe", "größe"], to_vertex_alias, to_distinct_alias
    )

    assert mapped["champion"] == "champion"
    assert len(set(mapped.values())) == 5
    assert mapped == _mapping.map_aliases(sorted(mapped), to_vertex_alias, to_distinct_alias)


# --- again, and after an interruption ---------------------------------------------------------------------------------


def test_a_month_later_only_what_is_new_moves(source: mlflow.MlflowClient, registry: LocalRegistry, model: str) -> None:
    """A new version takes its alias along. What somebody has changed on Vertex since stays, and is reported."""
    fill(source, "churn", model, 2)
    source.set_registered_model_alias("churn", "Champion", "1")
    migrate(registry, source)
    registry.set_stage("churn", 2, "production")
    registry.remove_aliases("churn", 1, ["champion"])
    source.update_model_version("churn", "2", "better")
    source.create_model_version("churn", model)
    source.set_registered_model_alias("churn", "challenger", "3")

    report = migrate(registry, source)

    assert outcomes(report) == ["churn 1: exists", "churn 2: exists", "churn 3: moved"]
    assert [line.reason for line in report.versions] == [
        "changed since: it doesn't have the alias 'champion'",
        "changed since: its stage is Production, and None in MLflow; its description differs",
        "",
    ]
    assert registry.get_version("churn", "challenger").version_name == "3"
    assert registry.get_version("churn").version_name == "3"


def test_a_default_version_that_somebody_chose_stays(
    source: mlflow.MlflowClient, registry: LocalRegistry, model: str
) -> None:
    """The default version moves along with the newest one, until somebody chooses another one."""
    fill(source, "churn", model, 2)
    migrate(registry, source)
    registry.set_default("churn", 1)
    source.create_model_version("churn", model)
    migrate(registry, source)

    assert registry.get_version("churn").version_name == "1"


@pytest.mark.parametrize("method", ["UploadModel", "UpdateModel", "MergeVersionAliases"])
def test_a_run_that_was_cut_off_is_finished(
    source: mlflow.MlflowClient, registry: LocalRegistry, model: str, method: str
) -> None:
    """Wherever it stopped, the next run continues there: no version twice, none without its aliases."""
    fill(source, "churn", model, 4, tags={"note": "kept"})
    migrate(registry, source)
    source.create_model_version("churn", model, tags={"note": "kept"})
    source.create_model_version("churn", model)
    for number in (1, 5):
        source.set_registered_model_alias("churn", "champion", str(number))
    registry.emulator.fail(method, code="PERMISSION_DENIED")

    stopped = migrate(registry, source)
    finished = migrate(registry, source)

    assert outcomes(stopped)[4:] == ["churn 5: skipped", "churn 6: skipped"]
    assert stopped.versions[5].reason == "the run had stopped before"
    assert outcomes(finished)[4:] == ["churn 5: moved", "churn 6: moved"]
    assert names(registry, "churn") == ["1", "2", "3", "4", "5", "6"]
    assert registry.get_version("churn", "champion").version_name == "5"
    assert registry.get_version("churn").version_name == "6"
    assert registry.get_version("churn", 5).metadata["note"] == "kept"
    assert not any("mlflow-pending-aliases" in version.metadata for version in registry.list_versions("churn"))


def test_tags_that_changed_after_a_run_was_cut_off(
    source: mlflow.MlflowClient, registry: LocalRegistry, model: str
) -> None:
    """The upload has other files then. The line says what to do, and that works."""
    fill(source, "churn", model, 1)
    migrate(registry, source)
    source.create_model_version("churn", model, tags={"large": "x" * 70_000})
    registry.emulator.fail("UpdateModel", code="PERMISSION_DENIED")
    migrate(registry, source)
    source.set_model_version_tag("churn", "2", "large", "y" * 70_000)

    (_, line) = migrate(registry, source).versions
    assert line.reason.endswith("Delete that version on Vertex, and run the migration again")
    assert "version 2" in line.reason
    registry.delete_version("churn", 2)
    migrate(registry, source)

    assert registry.get_metadata("churn", version_name="2")["large"] == "y" * 70_000


def test_ctrl_c(source: mlflow.MlflowClient, registry: LocalRegistry, model: str) -> None:
    """After an interruption, the next run moves the rest."""
    fill(source, "churn", model, 3)
    plan = plan_mlflow(registry, uri_of(source))
    moved = plan.run(container=SKLEARN)
    next(moved)
    with pytest.raises(KeyboardInterrupt):
        moved.throw(KeyboardInterrupt())

    assert outcomes(plan.report([])) == ["churn 1: planned", "churn 2: planned", "churn 3: planned"]
    assert outcomes(migrate(registry, source)) == ["churn 1: exists", "churn 2: moved", "churn 3: moved"]


# --- skipped versions, and obstacles that don't matter ----------------------------------------------------------------


def test_what_is_skipped_and_why(source: mlflow.MlflowClient, registry: LocalRegistry, model: str) -> None:
    """Each skipped version has its reason, and all others move."""
    fill(source, "churn", model, 4)
    source.delete_model_version("churn", "2")
    source.create_model_version("churn", "/nowhere/model")
    source.create_model_version("churn", "s3://bucket/model")
    source.create_registered_model("empty")
    fill(source, "n" * 129, model, 1)
    fill(source, "a\u00a0b", model, 1)
    mlflow.set_registry_uri(uri_of(source))
    mlflow.genai.register_prompt("greeting", "Hello {{name}}")
    with closing(sqlite3.connect(uri_of(source).removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE version = 3")

    report = migrate(registry, source)

    reasons = {(line.model[:5], line.number): line.reason for line in report.versions}
    assert reasons.pop(("churn", 1)) == reasons.pop(("churn", 4)) == ""
    assert reasons.pop(("churn", 3)) == "MLflow hasn't finished its registration (PENDING_REGISTRATION)"
    assert reasons.pop(("churn", 5)) == "There are no files at /nowhere/model"
    assert "s3://bucket/model can't be read: " in reasons.pop(("churn", 6))
    assert reasons.pop(("empty", None)) == "it has no version, and Vertex has no model without one"
    assert reasons.pop(("nnnnn", 1)).startswith("its name has 129 characters, and Vertex allows 128")
    assert "has characters that can't be seen" in reasons.pop(("a\u00a0b", 1))
    assert reasons == {}
    assert names(registry, "churn") == ["1", "4"]
    assert (report.prompts, report.complete) == (1, False)
    assert str(report) == "2 moved, 6 skipped (14 bytes); 1 prompt left out"
    assert json.loads(json.dumps(report.to_dict()))["counts"] == {"moved": 2, "skipped": 6}


def test_a_logged_model_whose_run_was_deleted(tracking: str, registry: LocalRegistry) -> None:
    """A model that was logged has its logged model's ID, and MLflow loads what was copied."""
    client = mlflow.MlflowClient(tracking, tracking)
    with mlflow.start_run() as started:
        estimator = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
        logged = mlflow.sklearn.log_model(estimator, name="m", registered_model_name="logged", pip_requirements=[])
    client.delete_run(started.info.run_id)
    try:
        report = migrate_mlflow(registry, tracking, models=["logged"])
    finally:
        client.delete_registered_model("logged")

    (line,) = report.versions
    metadata = registry.get_metadata("logged", 1)
    assert (line.outcome, line.lossy) == (Outcome.MOVED, ())
    assert "Google has no serving image for scikit-learn" in line.warnings[0]
    assert (metadata["mlflow-run-id"], metadata["mlflow-model-id"]) == (started.info.run_id, logged.model_id)
    folder = registry.download_version("logged", 1)
    assert mlflow.sklearn.load_model(str(folder)).predict([[1.0]]).tolist() == [1]


def test_what_no_prebuilt_image_serves(source: mlflow.MlflowClient, registry: LocalRegistry, tmp_path: Path) -> None:
    """It's skipped, and a second run with a container moves it."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: own\n")
    fill(source, "own", str(tmp_path / "own"), 1)

    refused = migrate_mlflow(registry, uri_of(source))
    moved = migrate_mlflow(registry, uri_of(source), container="us-docker.pkg.dev/acme/serving/own:7")

    assert refused.versions[0].reason.startswith("Google has no prebuilt image for an MLflow model of the flavor")
    assert outcomes(moved) == ["own 1: moved"]
    assert str(registry.get_version("own").container.image).endswith("own:7")  # type: ignore[union-attr]


def test_a_model_that_is_on_vertex_already(source: mlflow.MlflowClient, registry: LocalRegistry, model: str) -> None:
    """Its versions, default version and description stay; a version of the same name is another one."""
    registry.register_version("churn", "gs://models/churn", version_name="2", model_description="ours")
    fill(source, "churn", model, 3)
    source.update_registered_model("churn", "theirs")

    report = migrate(registry, source)

    assert outcomes(report) == ["churn 1: moved", "churn 2: skipped", "churn 3: moved"]
    assert report.versions[0].lossy == ("the description and the tags of the model, which has its own on Vertex",)
    assert report.versions[1].reason == "version 1 on Vertex has the name 2 and is another one"
    assert registry.get_version("churn").version == "1"
    assert registry.get_model("churn").description == "ours"


def test_another_name(source: mlflow.MlflowClient, registry: LocalRegistry, model: str) -> None:
    """Two models can also swap their names."""
    fill(source, "churn", model, 1, description="churn's")
    fill(source, "fraud", model, 1, description="fraud's")
    report = migrate(registry, source, rename={"churn": "fraud", "fraud": "churn"})

    assert [(line.model, line.source_model) for line in report.versions] == [("fraud", "churn"), ("churn", "fraud")]
    assert registry.get_version("fraud").description == "churn's"


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"chrun": "x"}, r"rename has 'chrun', and MLflow has no model of that name. Did you mean 'churn'\?"),
        ({"churn": "fraud"}, "would both be 'fraud'"),
        ({"churn": ""}, "rename has to have a name for each name"),
        ({"churn": 7}, "rename has to have a name for each name"),
        ({"churn": "x" * 129}, "a name of 129 characters, and Vertex allows 128"),
    ],
)
def test_new_names_with_mistakes(
    source: mlflow.MlflowClient, registry: LocalRegistry, model: str, rename: Any, message: str
) -> None:
    """Nothing is moved."""
    fill(source, "churn", model, 1)
    source.create_registered_model("fraud")
    with pytest.raises(InvalidArgumentError, match=message):
        migrate(registry, source, rename=rename)

    assert list(registry.list_models()) == []


# --- where MLflow's registry is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "is empty. Pass one such as sqlite:///mlflow.db"),
        ("sqlite:///nowhere.db", "There's no database nowhere.db"),
        ("sqlite:///other.db", "other.db isn't an MLflow database"),
        ("sqlite:///text.db", "text.db can't be read as a SQLite database"),
        ("other.db", "'other.db' is a file. Pass sqlite:///other.db"),
        ("vertex://local/x", "a registry on Vertex AI already"),
        ("http://ann:secret@127.0.0.1:9", "http://ann@127.0.0.1:9 doesn't answer"),
        ("foo://ann:secret@host/x?password=secret", "foo://ann@host/x can't be read"),
    ],
)
def test_a_uri_with_a_mistake(registry: LocalRegistry, tmp_path: Path, uri: str, message: str) -> None:
    """The error says what to do, nothing is created, and no password is shown."""
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE other (name TEXT)").connection.close()
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(RegistryError) as raised:
        plan_mlflow(registry, uri)

    assert message in str(raised.value)
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "nowhere.db").exists()


@pytest.fixture
def server(sqlite_registry: str, tmp_path: Path) -> Iterator[str]:
    """Run MLflow's own server with a registry, and return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", sqlite_registry, "--artifacts-destination", str(tmp_path / "stored")]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # it takes long enough
    environment = ours | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + START
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "log").read_text()[-3_000:]
                    assert time.monotonic() < end
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def test_a_server_to_a_bucket(
    server: str,
    bucket: str,
    storage_emulator: StorageServer,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Over REST, with artifacts that the server keeps, to a bucket in Cloud Storage; then again from its database."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    client = mlflow.MlflowClient(server, server)
    started = client.create_run(client.create_experiment("served")).info
    run_id = started.run_id
    assert started.artifact_uri.startswith("mlflow-artifacts:")
    (Path(model) / "assets").mkdir()
    (Path(model) / "assets" / "notes.txt").write_text("notes")
    client.log_artifacts(run_id, model, "model")
    client.create_registered_model("it's")
    tags = {"large": "x" * 3_000 + "".join(map(chr, range(0x4E00, 0x5500)))}
    client.create_model_version("it's", f"{started.artifact_uri}/model", run_id, tags=tags)
    client.create_model_version("it's", f"runs:/{run_id}/model", run_id)
    client.set_registered_model_alias("it's", "Champion", "1")

    with Emulator(storage=storage_emulator.url) as emulator, RegistryClient(endpoint=emulator.grpc) as registry:
        report = migrate_mlflow(registry, server, container=SKLEARN, staging_bucket=f"gs://{bucket}/models")
        again = migrate_mlflow(registry, server, models=["it's"])

        assert outcomes(report) == ["it's 1: moved", "it's 2: moved"], report.to_dict()
        assert report.size == 2 * len(b"a modelnotes")
        assert report.versions[0].lossy == ("alias 'Champion' is 'champion'", "in a file next to the artifact: 'large'")
        assert outcomes(again) == ["it's 1: exists", "it's 2: exists"]
        assert registry.get_metadata("it's", "champion")["large"] == tags["large"]
        folder = registry.download_version("it's", 2)
        assert sorted(path.name for path in folder.rglob("*")) == ["assets", "model.joblib", "notes.txt"]


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "from-mlflow.md"


def test_the_tables_of_the_page() -> None:
    """The page lists every outcome, every field and every option of the command."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    command = cli.commands["migrate"].commands["mlflow"]  # type: ignore[attr-defined]  # a group
    common = {name for each in cli.commands["duplicates"].params for name in each.opts}
    own = {name for each in command.params for name in each.opts if name.startswith("--")} - common - {"--from"}

    assert {str(outcome) for outcome in Outcome} <= named
    assert _mapping.FIELDS - {_mapping.PENDING, _mapping.OFFSET} == {
        name for name in named if name.startswith("mlflow-")
    }
    assert own == {name for name in named if name.startswith("--")}


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command(
    source: mlflow.MlflowClient, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan comes first, then a line for each version, then the report; the status says whether anything is left."""
    fill(source, "churn", model, 2)
    (tmp_path / "names.json").write_text('{"churn": "renamed"}')
    words = ["migrate", "mlflow", "--from", uri_of(source), "--container", SKLEARN, "--local", "vertex.db"]

    assert run([*words, "--dry-run", "--format", "json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert run([*words, "--rename", "names.json"]) == 0
    moved = capsys.readouterr()
    source.create_registered_model("empty")
    assert run([*words, "--rename", "names.json", "--format", "ids"]) == 1
    again = capsys.readouterr()

    assert (planned["dry_run"], planned["counts"], planned["size"]) == (True, {"planned": 2}, 14)
    assert [row.split()[:4] for row in moved.out.splitlines()] == [
        ["MODEL", "MLFLOW", "VERTEX", "OUTCOME"],
        ["renamed", "1", "1", "moved"],
        ["renamed", "2", "2", "moved"],
    ]
    assert moved.err.splitlines()[1:] == [
        "[1/2] renamed 1: moved",
        "[2/2] renamed 2: moved",
        "2 moved (14 bytes)",
    ]
    assert again.out.splitlines() == ["renamed 1", "renamed 2", "empty -"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "b", "a": "c"}', "has 'a' twice"),
        ('["a"]', "isn't a JSON object such as"),
        ('{"a": ""}', "isn't a JSON object such as"),
        ("{", "isn't a JSON object such as"),
        ('{"a": "b"}', "MLflow has no model of that name"),
    ],
)
def test_a_file_of_names_with_a_mistake(
    source: mlflow.MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """The error names the file or the name."""
    (tmp_path / "names.json").write_text(text)
    words = ["migrate", "mlflow", "--from", uri_of(source), "--local", "vertex.db", "--rename", "names.json"]

    assert run(words) in {1, 2}
    assert message in capsys.readouterr().err


def test_a_staging_bucket_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is read before that's clear."""
    assert run(["migrate", "mlflow", "--from", "sqlite:///mlflow.db", "--project", "acme"]) == 2
    assert "Add --staging-bucket gs://bucket" in capsys.readouterr().err
