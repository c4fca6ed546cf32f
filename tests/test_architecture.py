"""The allowed imports: each contract holds, and each one fails if it's broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import picture

ROOT = Path(__file__).parents[1]

# For each contract, a module and a line that must not be in it.
BREACHES = {
    "client-layers": ("_records.py", "from vertex_registry import _wire"),
    "artifacts-layers": ("artifacts/_local.py", "from vertex_registry.artifacts import _cloud"),
    "emulator-layers": ("emulator/_store.py", "from vertex_registry.emulator import _service"),
    "emulator-without-client": ("emulator/_service.py", "from vertex_registry import errors"),
    "client-without-emulator": ("_rpc.py", "from vertex_registry import emulator"),
    "google-libraries": ("_records.py", "import grpc"),
    "adapters-use-public-names": ("zenml.py", "from vertex_registry import _names"),
    "cli-uses-public-names": ("cli/_output.py", "from vertex_registry import _names"),
}

# Contracts with wildcards, and a module that doesn't exist yet with a line that must not be in it.
NEW_MODULES = {
    "client-layers": ("_new.py", "import json"),
    "artifacts-layers": ("artifacts/_new.py", "import json"),
    "emulator-layers": ("emulator/_new.py", "import json"),
    "emulator-without-client": ("emulator/_new.py", "from vertex_registry import _names"),
    "client-without-emulator": ("_new.py", "from vertex_registry import emulator"),
    "google-libraries": ("artifacts/_new.py", "import grpc"),
    "cli-uses-public-names": ("cli/_new.py", "from vertex_registry import _new"),
}


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the contracts on a copy of the package."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [lint_imports, "--no-cache", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "vertex_registry", folder / "vertex_registry", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    kept = lint(folder)
    assert kept.returncode == 0, kept.stdout
    return folder


def test_the_picture_shows_the_contracts() -> None:
    """The picture on the architecture page shows the layers of the contracts, with every module."""
    drawn = picture.PICTURE.read_text(encoding="utf-8")
    modules = {
        module for name in ("", ".emulator") for row in picture.layers(f"vertex_registry{name}") for module in row
    }

    assert drawn == picture.draw(), "run `make picture`"
    assert {module for module in modules if f">{module}</text>" not in drawn} == set()


def test_every_contract_has_a_breach() -> None:
    """Each contract has a line that breaks it, so it's known to work."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

    assert {contract["id"] for contract in contracts} == BREACHES.keys()


@pytest.mark.parametrize("contract", BREACHES)
def test_a_contract_notices_a_breach(copy: Path, contract: str) -> None:
    """Each contract is kept by the package, and broken by one line in the wrong place."""
    module, line = BREACHES[contract]
    path = copy / "vertex_registry" / module
    text = path.read_text(encoding="utf-8")
    path.write_text(text + f"\n{line}\n", encoding="utf-8")
    broken = lint(copy, "--contract", contract)
    path.write_text(text, encoding="utf-8")

    assert broken.returncode == 1, broken.stdout
    assert "BROKEN" in broken.stdout


@pytest.mark.parametrize("contract", NEW_MODULES)
def test_a_contract_covers_new_modules(copy: Path, contract: str) -> None:
    """A module that nobody has added to a contract can't break it unnoticed."""
    module, line = NEW_MODULES[contract]
    path = copy / "vertex_registry" / module
    path.write_text(f"{line}\n", encoding="utf-8")
    imported = copy / "vertex_registry" / "_new.py"
    imported.touch()
    broken = lint(copy, "--contract", contract)
    path.unlink()
    imported.unlink(missing_ok=True)

    assert broken.returncode == 1, broken.stdout
