"""Progress bars in a notebook whose cells run in a real Jupyter kernel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbclient
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager

if TYPE_CHECKING:
    from tests.storage.server import StorageServer

WIDGETS = "application/vnd.jupyter.widget-state+json"
CONNECT = """
import sys

from vertex_registry import RegistryClient

registry = RegistryClient(project="acme", endpoint="127.0.0.1:9", staging_bucket="gs://{bucket}")
"""
WITHOUT_WIDGETS = 'sys.modules["ipywidgets"] = None'
UPLOAD = 'uri = registry.upload({folder!r}, name="churn", container="xgboost")'
DOWNLOAD = "fetched = registry.download(uri, {folder!r} + '-fetched')"


@pytest.fixture
def bucket(storage_emulator: StorageServer, bucket: str) -> str:
    """Create an empty bucket on the server in ``STORAGE_EMULATOR_HOST``, and return its name."""
    del storage_emulator
    return bucket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a model with two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.bst").write_bytes(b"x" * 400_000)
    (folder / "notes.txt").write_bytes(b"y" * 100_000)
    return folder


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str, folder: Path) -> Any:
    """Return a function that runs cells in a kernel, and returns the notebook with their outputs."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def execute(*cells: str) -> Any:
        v4: Any = nbformat.v4  # its functions have no types
        code = [v4.new_code_cell(cell.format(bucket=bucket, folder=str(folder))) for cell in cells]
        notebook = v4.new_notebook(cells=code)
        with tempfile.TemporaryDirectory() as short:  # a socket's path can't be longer than about 100 characters
            kernel = AsyncKernelManager(transport="ipc", connection_file=f"{short}/kernel.json")
            nbclient.NotebookClient(notebook, kernel, timeout=60, shutdown_kernel="immediate").execute(cleanup_kc=True)
        return notebook

    return execute


def test_a_notebook_shows_a_progress_bar(execute: Any, folder: Path) -> None:
    """In a notebook, uploads and downloads show a bar that ends at 100 % and stays visible."""
    notebook = execute(CONNECT, UPLOAD, DOWNLOAD)
    _, upload, download = notebook.cells
    widgets = {key: widget["state"] for key, widget in notebook.metadata.widgets[WIDGETS]["state"].items()}

    assert Path(f"{folder}-fetched", "model.bst").stat().st_size == 400_000
    for cell, verb in ((upload, "Uploading"), (download, "Downloading")):
        (output,) = cell.outputs
        box = widgets[output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]]
        text, bar, rate = (widgets[child.removeprefix("IPY_MODEL_")] for child in box["children"])
        assert text["value"].replace("\u2007", " ") == f"{verb} 2 files: 100%"
        assert (bar["value"], bar["max"], bar["bar_style"]) == (500_000, 500_000, "success")
        assert "488k/488k" in rate["value"]


def test_a_notebook_without_widgets_shows_a_text_bar(execute: Any) -> None:
    """Without ipywidgets, the bar is drawn as text, and there's no warning."""
    notebook = execute(CONNECT + WITHOUT_WIDGETS, UPLOAD, DOWNLOAD)

    for cell, verb in zip(notebook.cells[1:], ("Uploading", "Downloading"), strict=True):
        drawn = "".join(output["text"] for output in cell.outputs)
        assert {output["name"] for output in cell.outputs} == {"stderr"}
        assert all(not line or line.startswith(f"{verb} 2 files: ") for line in drawn.strip().split("\r"))
        assert f"{verb} 2 files: 100%|██████████| 488k/488k" in drawn.splitlines()[-1].split("\r")[-1]
