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

# Examples are drawn anew in each run, and are too few to be slow; a machine that is busy is no failure.
hypothesis.settings.register_profile("gate", deadline=None, max_examples=int(os.environ.get("EXAMPLES", "40")))
hypothesis.settings.load_profile("gate")

pytest_plugins = ["tests.storage.server"]

# The pages about MLflow are run by tests/mlflow_adapter, in the environment that has it.
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
    """Let no variable of the machine's decide what a test talks to."""
    del config
    for variable in ("VERTEX_AI_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        os.environ.pop(variable, None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Let one coverage count in each of several processes: pytest-cov 7 begins a second, and the first would go on.

    A test that is not to be counted stops the one that pytest-cov knows of, and pays for the other.
    """
    controller = getattr(session.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is not None and hasattr(session.config, "workerinput"):
        controller.cov.stop()


#: Where tests start processes of their own, which take seconds.
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
    """Let the longest tests come first, so that at the end no process has one alone while the others wait."""
    items.sort(key=lambda item: item.path.name not in SLOW)


def pytest_collection_finish() -> None:
    """Let the collector of garbage leave alone what stays for the whole run: Google's packages and thousands of tests.

    To look through all of it again and again takes a fifth of the time of a run.
    """
    gc.collect()
    gc.freeze()
