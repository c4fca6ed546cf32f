"""The examples in the README, in the docs and in docstrings are tests."""

from __future__ import annotations

import gc
import os

import hypothesis
import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

# Each run uses new random examples, few enough to be fast. There's no deadline, so a busy machine doesn't fail a test.
hypothesis.settings.register_profile("gate", deadline=None, max_examples=int(os.environ.get("EXAMPLES", "40")))
hypothesis.settings.load_profile("gate")

pytest_plugins = ["tests.storage.server"]

# tests/mlflow_adapter runs the pages about MLflow, in the environment that has MLflow.
markdown = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    excludes=["CHANGELOG.md", "docs/mlflow.md", "docs/from-mlflow.md"],
)
docstrings = Sybil(
    parsers=[DocTestParser()],
    patterns=["vertex_registry/*.py"],
    document_types={".py": PythonDocStringDocument},
)

pytest_collect_file = (markdown + docstrings).pytest()


def pytest_configure(config: pytest.Config) -> None:
    """Remove environment variables that would connect tests to another registry."""
    del config
    for variable in ("VERTEX_AI_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        os.environ.pop(variable, None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop a second measurement of coverage in each worker process.

    pytest-cov 7 starts another one there, and the marker `no_cover` only stops that one. The first would keep running.
    """
    controller = getattr(session.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is not None and hasattr(session.config, "workerinput"):
        controller.cov.stop()


#: Files whose tests start processes, which takes seconds.
SLOW = (
    "test_any_process.py",
    "test_live.py",
    "test_embedding.py",
    "test_plugin.py",
    "test_testing_page.py",
    "test_gcloud.py",
    "test_histories.py",
    "test_stateful.py",
    "test_package.py",
    "test_example_notebook.py",
    "test_notebook.py",
    "test_browser.py",
    "test_site_served.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so no worker is still busy with one while the others have finished."""
    items.sort(key=lambda item: item.path.name not in SLOW)


def pytest_collection_finish() -> None:
    """Exclude what exists now from garbage collection: Google's packages and thousands of tests.

    Scanning them again and again takes a fifth of a run.
    """
    gc.collect()
    gc.freeze()
