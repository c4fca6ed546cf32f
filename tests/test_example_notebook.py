"""The notebook in ``examples`` runs, and its cells show tables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the notebook in a kernel whose files stay in the test's folder, and return it with its outputs."""
    own = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory() as short:
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            environment.setenv(variable, str(own / variable))
        notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # Jupyter's has no types
        kernel = AsyncKernelManager(transport="ipc", connection_file=f"{short}/kernel.json")
        nbclient.NotebookClient(notebook, kernel, timeout=60, shutdown_kernel="immediate").execute(cleanup_kc=True)
    return notebook


def output(notebook: Any, code: str) -> Any:
    """Return what the cell with that code shows."""
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and code in cell.source)
    (shown,) = cell.outputs
    return shown.get("data", shown)


def test_the_notebook_shows_tables(executed: Any) -> None:
    """Lists and versions are shown in HTML and in text, and nothing links to a console."""
    versions = output(executed, "registry.list_models()")
    assert "<td" in versions["text/html"]
    assert versions["text/plain"].startswith("NAME")
    promoted = output(executed, "best_version")
    assert "Production" in promoted["text/html"]
    assert "<ModelVersion 'churn' version 2" in promoted["text/plain"]
    assert "<a " not in promoted["text/html"] + versions["text/html"]
    more = output(executed, '"fraud"')
    assert "20 versions shown; there are more" in more["text/html"]
    assert more["text/html"].count("<tr>") == 21
    assert "1.2.0" in output(executed, "print(repr")["text"]


def test_the_notebook_makes_a_frame(executed: Any) -> None:
    """The DataFrame has a column for each metadata key."""
    assert "metadata.accuracy" in output(executed, "to_pandas")["text/html"]


def test_the_notebook_is_stored_without_outputs() -> None:
    """Outputs would show times and paths of a contributor's machine."""
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # likewise
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
