"""Run the Python examples of the pages about MLflow, each page in its own folder."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import mlflow
import pytest

from vertex_registry.mlflow import VertexModelRegistryStore
from vertex_registry.mlflow_connection import CODES, SETTINGS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [page for page in ("mlflow.md", "from-mlflow.md") if (DOCS / page).exists()]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_a_page(empty_database: Path, tmp_path: Path, page: str) -> None:
    """Each example continues where the previous one ended."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")  # creating its tables takes seconds
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(experiment_id="0")  # as in a new process
    text = (DOCS / page).read_text(encoding="utf-8")
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Google has no serving image")  # of what is installed here
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block[1], str(DOCS / page), "exec"), names)  # noqa: S102  # our own page
    VertexModelRegistryStore("vertex://local/registry.db").close()


def test_the_page_lists_everything() -> None:
    """The page about the store lists every setting of a URI, and the code of every error."""
    text = (DOCS / "mlflow.md").read_text(encoding="utf-8")
    from mlflow.protos.databricks_pb2 import ErrorCode  # noqa: PLC0415

    assert [name for name in SETTINGS if f"`{name}`" not in text] == []
    assert [code for code in map(ErrorCode.Name, CODES.values()) if f"`{code}`" not in text] == []
