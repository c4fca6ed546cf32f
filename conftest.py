"""The examples in the README, in the docs and in docstrings are tests."""

from __future__ import annotations

import _thread
import gc
import os
import sys
import threading
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

from tests.unmeasured import EVERY, Times, name_of, unmeasured

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Each run uses new random examples, few enough to be fast. There's no deadline, so a busy machine doesn't fail a test.
hypothesis.settings.register_profile("gate", deadline=None, max_examples=int(os.environ.get("EXAMPLES", "40")))
hypothesis.settings.load_profile("gate")

pytest_plugins = ["tests.emulators", "tests.storage.server"]

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
    for variable in ("VERTEX_AI_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        os.environ.pop(variable, None)
    if EVERY in os.environ:
        config.pluginmanager.register(Times(os.environ[EVERY]))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop a second measurement of coverage in each worker process.

    pytest-cov 7 starts another one there, and only that one is paused later. The first would keep running.
    """
    controller = getattr(session.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is not None and hasattr(session.config, "workerinput"):
        controller.cov.stop()


class CountedImports:
    """Measures coverage while a module of the package is imported for the first time, even if it's paused.

    Importing thousands of tests takes almost twice as long if it's measured, and only the package counts.
    """

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the package as usual, and measure while it runs."""
        del target
        if fullname.partition(".")[0] != "vertex_registry" or self._controller.started:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._counted(execute, module)  # type: ignore[method-assign]
        return spec

    def _counted(self, execute: Any, module: ModuleType) -> None:
        self._controller.resume()
        try:
            execute(module)
        finally:
            self._controller.pause()


def start_counted_thread(start: Any) -> Any:
    """Return a function that starts a thread as ``start`` does, and measures it. Python only does so in `threading`."""

    def start_new_thread(function: Any, *arguments: Any) -> int:
        def run(*args: Any, **kwargs: Any) -> None:
            sys.settrace(threading.gettrace())
            function(*args, **kwargs)

        return int(start(run, *arguments))

    return start_new_thread


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect without measuring coverage, except in the package itself."""
    controller = getattr(session.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is None:
        return (yield)
    controller.pause()
    import google.cloud.aiplatform_v1  # noqa: F401, PLC0415  # otherwise the package imports it, and it's measured too

    sys.meta_path.insert(0, CountedImports(controller))
    _thread.start_new_thread = start_counted_thread(_thread.start_new_thread)
    try:
        return (yield)
    finally:
        controller.resume()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Pause coverage during a test with the marker `unmeasured`, and during its fixtures."""
    controller = getattr(item.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is None or item.get_closest_marker("unmeasured") is None:
        return (yield)
    controller.pause()
    try:
        return (yield)
    finally:
        controller.resume()


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
    """Run the longest tests first, so no worker is still busy when the others have finished; mark unmeasured ones."""
    listed = unmeasured()
    for item in items:
        if name_of(item.nodeid) in listed:
            item.add_marker("unmeasured")
    items.sort(key=lambda item: item.path.name not in SLOW)


def pytest_collection_finish() -> None:
    """Exclude what exists now from garbage collection: Google's packages and thousands of tests.

    Scanning them again and again takes a fifth of a run.
    """
    gc.collect()
    gc.freeze()
