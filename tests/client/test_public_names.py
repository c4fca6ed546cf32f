"""The public names of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vertex_registry
from tests import pins


def test_every_public_name_is_what_its_module_defines() -> None:
    """Each public name can be imported, is listed, and has its type."""
    tree = ast.parse(Path(vertex_registry.__file__).read_text(encoding="utf-8"))
    typed = {
        (alias.name, node.module.removeprefix("vertex_registry."))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vertex_registry.")
        for alias in node.names
    }
    typed -= {("__version__", "_version")}
    assert typed == set(vertex_registry._DEFINED_IN.items())
    assert set(vertex_registry.__all__) == {"__version__", *vertex_registry._DEFINED_IN}
    for name in vertex_registry.__all__:
        assert getattr(vertex_registry, name) is not None
        assert name in dir(vertex_registry)


def test_what_users_rely_on_is_written_down() -> None:
    """Names, signatures, options and JSON fields are those in `tests/pins.txt`, so that a change shows in review."""
    assert pins.text() == pins.FILE.read_text(encoding="utf-8"), "run `make pins`, and say in CHANGELOG.md what changes"


def test_a_name_that_does_not_exist() -> None:
    """A name that isn't public is an AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="RegistryKlient"):
        vertex_registry.RegistryKlient  # type: ignore[attr-defined]  # noqa: B018  # that's the mistake


def test_importing_the_package_imports_nothing_it_does_not_need() -> None:
    """Importing the package imports none of its modules; a name imports the module that defines it."""
    script = (
        "import sys, vertex_registry\n"
        "print([m for m in sys.modules if m.startswith('vertex_registry.')], 'attrs' in sys.modules)\n"
        "vertex_registry.Stage\n"
        "print('vertex_registry._stages' in sys.modules, 'vertex_registry._client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['vertex_registry._version'] False\nTrue False\n"
