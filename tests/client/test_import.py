"""What importing the package and creating a client costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vertex_registry


@pytest.mark.parametrize(
    "use",
    [
        "import vertex_registry",
        "from vertex_registry import *",
        "from vertex_registry import RegistryClient; RegistryClient(project='acme').close()",
    ],
)
def test_nothing_from_google_is_imported(use: str) -> None:
    """Neither importing the package nor creating a client imports google or grpc."""
    # google-cloud-aiplatform has every interpreter begin with the empty packages `google` and `google.cloud`.
    new = "[name for name in set(sys.modules) - before if name.split('.')[0] in ('google', 'grpc')]"
    code = f"import sys; before = set(sys.modules); {use}; print({new})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_the_public_names() -> None:
    """The public names are exactly these, and they're sorted."""
    assert sorted(vertex_registry.__all__) == vertex_registry.__all__
    assert all(hasattr(vertex_registry, name) for name in vertex_registry.__all__)
