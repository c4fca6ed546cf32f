"""The same calls give the same results on Vertex and in MLflow's own registry, even if they're invalid."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from vertex_registry.mlflow import VertexModelRegistryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

Call = tuple[Any, ...]

NAMES = ("churn", "Churn", "uplift model", "für später")
ALIASES = ("champion", "prod_candidate", "Canary", "2026", "x", "最良", "latest", "v1", "a/b", "")
KEYS = ("team", "Team", "mlflow.note", "a b", "größe", "", "a/../b")
TEXTS = ("", "growth", "Who leaves,\nand when? ✓", 'MLflow tags: {"a": "b"}', "MLflow tags: {}", "0.93", "x" * 300)
STAGES = ("None", "Staging", "production", "Archived", "canary")
FILTERS = (
    None,
    "name = 'churn'",
    "name LIKE '%hurn'",
    "name ILIKE 'churn'",
    "name IN ('churn', 'uplift model')",
    "name != 'churn' AND tags.team = 'growth'",
    "tags.`a b` != ''",
    "tags.team LIKE '%o%'",
    "name = 'nobody'",
)
VERSION_FILTERS = (
    *FILTERS,
    "version_number >= 2",
    "run_id = 'run1'",
    "name = 'churn' AND version_number < 3",
    "aliases = 'champion'",
)
MODEL_ORDERS = (None, ["name DESC"], ["name ASC"], ["nonsense"])
VERSION_ORDERS = (["version_number ASC", "name DESC"], ["name ASC", "version_number DESC"], ["stage"])

name = st.sampled_from(NAMES)
version = st.integers(0, 4)
text = st.sampled_from(TEXTS)
key = st.sampled_from(KEYS)
alias = st.sampled_from(ALIASES)
tags = st.dictionaries(key, text, max_size=2)
CALLS: st.SearchStrategy[Call] = st.one_of(
    st.tuples(st.just("create_registered_model"), name, st.none() | tags, text),
    st.tuples(st.just("create_model_version"), name, st.sampled_from([None, "run1"]), st.none() | tags, text),
    st.tuples(st.just("update_registered_model"), name, text),
    st.tuples(st.just("rename_registered_model"), name, name),
    st.tuples(st.just("delete_registered_model"), name),
    st.tuples(st.just("get_latest_versions"), name, st.none() | st.lists(st.sampled_from(STAGES), max_size=2)),
    st.tuples(st.just("set_registered_model_tag"), name, key, text),
    st.tuples(st.just("delete_registered_model_tag"), name, key),
    st.tuples(st.just("update_model_version"), name, version, text),
    st.tuples(st.just("transition_model_version_stage"), name, version, st.sampled_from(STAGES), st.booleans()),
    st.tuples(st.just("delete_model_version"), name, version),
    st.tuples(st.just("set_model_version_tag"), name, version, key, text),
    st.tuples(st.just("delete_model_version_tag"), name, version, key),
    st.tuples(st.just("set_registered_model_alias"), name, alias, version),
    st.tuples(st.just("delete_registered_model_alias"), name, alias),
    st.tuples(st.just("get_model_version_by_alias"), name, alias),
    st.tuples(st.just("search_registered_models"), st.sampled_from(FILTERS), st.just(2), st.sampled_from(MODEL_ORDERS)),
    st.tuples(
        st.just("search_model_versions"), st.sampled_from(VERSION_FILTERS), st.just(3), st.sampled_from(VERSION_ORDERS)
    ),
)

#: What differs on purpose: every model has the alias ``default`` on Vertex, and is created with its first version.
DEFAULT = "default"


def plain(value: Any) -> Any:
    """Return a call's result as plain values, without times and without intended differences."""
    if isinstance(value, list):
        token = getattr(value, "token", None)
        return [*map(plain, value), token]
    if isinstance(value, mlflow.entities.model_registry.RegisteredModel):
        return plain_model(value)
    if isinstance(value, mlflow.entities.model_registry.ModelVersion):
        return plain_version(value)
    return value


def plain_model(model: RegisteredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "description": model.description or None,
        "tags": model.tags,
        "aliases": {name: int(number) for name, number in model.aliases.items() if name != DEFAULT},
        "latest": sorted(int(found.version) for found in model.latest_versions),
    }


def plain_version(found: ModelVersion) -> dict[str, Any]:
    # In a search, MLflow's own store leaves the aliases out; the model has them.
    fields = ("name", "current_stage", "source", "run_id", "status", "tags")
    return {field: getattr(found, field) for field in fields} | {
        "version": int(found.version),
        "description": found.description or None,
    }


def outcome(client: MlflowClient, source: str, call: Call) -> Any:
    """Make a call, and return its result, or the code of its error."""
    verb, *arguments = call
    if verb == "create_model_version":
        named, run_id, given_tags, description = arguments
        arguments = [named, source, run_id, given_tags, None, description]
    try:
        return plain(getattr(client, verb)(*arguments))
    except MlflowException as error:
        return error.error_code


def state(client: MlflowClient) -> Any:
    """Return everything in a registry."""
    models = client.search_registered_models(order_by=["name ASC"])
    versions = client.search_model_versions(order_by=["name ASC", "version_number ASC"])
    aliases = {
        (model.name, alias): int(client.get_model_version_by_alias(model.name, alias).version)
        for model in models
        for alias in model.aliases
        if alias != DEFAULT
    }
    return plain(models), plain(versions), aliases


class Pair:
    """An empty registry of MLflow's own, and one on Vertex."""

    def __init__(self, folder: Path, empty_database: Path, number: int, uri: str) -> None:
        own = f"sqlite:///{shutil.copy(empty_database, folder / f'{number}.db')}"
        self.own, self.vertex = mlflow.MlflowClient(registry_uri=own), mlflow.MlflowClient(registry_uri=uri)
        self.source = str(folder / "model")

    def own_has(self, model: str) -> bool:
        try:
            self.own.get_registered_model(model)
        except MlflowException:
            return False
        return True


@pytest.fixture(scope="module")
def pair(empty_database: Path) -> Iterator[Callable[[], Pair]]:
    """Return a function that creates empty registries."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        (folder / "model").mkdir()
        (folder / "model" / "model.joblib").write_bytes(b"a model")
        uri = f"vertex://local/{folder}/vertex.db?image=us-docker.pkg.dev/acme/serving/churn:7"

        def create() -> Pair:
            store = VertexModelRegistryStore(uri)
            made = Pair(folder, empty_database, next(numbers), uri)
            for model in store.search_registered_models():
                store.delete_registered_model(model.name)
            return made

        yield create
        VertexModelRegistryStore(uri).close()


@settings(max_examples=25)
@given(calls=st.lists(CALLS, min_size=4, max_size=30))
def test_any_calls(pair: Callable[[], Pair], calls: list[Call]) -> None:
    """After any calls, both registries have the same content. Each call had the same result or the same error code."""
    both = pair()
    start: list[Call] = [
        ("create_registered_model", NAMES[0], None, ""),
        ("create_registered_model", NAMES[2], None, ""),
    ]
    start += [("create_model_version", name, None, None, "") for name in (NAMES[0], NAMES[0], NAMES[2])]
    for call in [*start, *calls]:
        if call[0] == "create_model_version" and not both.own_has(call[1]):
            continue  # Vertex creates the model
        own, vertex = (outcome(client, both.source, call) for client in (both.own, both.vertex))
        assert vertex == own, call
    assert state(both.vertex) == state(both.own)
