"""The allowed imports: each contract holds, and each one fails if it's broken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import picture

ROOT = Path(__file__).parents[1]

# For each contract, a module and a line that must not be in it, and what the report says of it.
BREACHES = {
    "client-layers": (
        "_records.py",
        "from vertex_registry import _wire",
        "vertex_registry._records -> vertex_registry._wire",
    ),
    "artifacts-layers": (
        "artifacts/_local.py",
        "from vertex_registry.artifacts import _cloud",
        "vertex_registry.artifacts._local -> vertex_registry.artifacts._cloud",
    ),
    "emulator-layers": (
        "emulator/_store.py",
        "from vertex_registry.emulator import _service",
        "vertex_registry.emulator._store -> vertex_registry.emulator._service",
    ),
    "emulator-without-client": (
        "emulator/_service.py",
        "from vertex_registry import errors",
        "vertex_registry.emulator._service -> vertex_registry.errors",
    ),
    "client-without-emulator": (
        "_rpc.py",
        "from vertex_registry import emulator",
        "vertex_registry._rpc -> vertex_registry.emulator",
    ),
    "google-libraries": ("_records.py", "import grpc", "vertex_registry._records -> grpc"),
    "adapters-use-public-names": (
        "zenml.py",
        "from vertex_registry import _names",
        "vertex_registry.zenml -> vertex_registry._names",
    ),
    "cli-uses-public-names": (
        "cli/_output.py",
        "from vertex_registry import _names",
        "vertex_registry.cli._output -> vertex_registry._names",
    ),
    "ui-layers": (
        "ui/_reading.py",
        "from vertex_registry.ui import _pages",
        "vertex_registry.ui._reading -> vertex_registry.ui._pages",
    ),
    "ui-uses-public-names": (
        "ui/_sites.py",
        "from vertex_registry.emulator import Emulator",
        "vertex_registry.ui._sites -> vertex_registry.emulator",
    ),
}

# Contracts with wildcards, and a module that doesn't exist yet: likewise.
NEW_MODULES = {
    "client-layers": ("_new.py", "import json", "not listed as layers:\n\n- vertex_registry._new\n"),
    "artifacts-layers": (
        "artifacts/_new.py",
        "import json",
        "not listed as layers:\n\n- vertex_registry.artifacts._new\n",
    ),
    "emulator-layers": (
        "emulator/_new.py",
        "import json",
        "not listed as layers:\n\n- vertex_registry.emulator._new\n",
    ),
    "emulator-without-client": (
        "emulator/_new.py",
        "from vertex_registry import _names",
        "vertex_registry.emulator._new -> vertex_registry._names",
    ),
    "client-without-emulator": (
        "_new.py",
        "from vertex_registry import emulator",
        "vertex_registry._new -> vertex_registry.emulator",
    ),
    "google-libraries": ("artifacts/_new.py", "import grpc", "vertex_registry.artifacts._new -> grpc"),
    "cli-uses-public-names": (
        "cli/_new.py",
        "from vertex_registry import _new",
        "vertex_registry.cli._new -> vertex_registry._new",
    ),
    "ui-layers": ("ui/_new.py", "import json", "not listed as layers:\n\n- vertex_registry.ui._new\n"),
    "ui-uses-public-names": (
        "ui/_new.py",
        "from vertex_registry import _names",
        "vertex_registry.ui._new -> vertex_registry._names",
    ),
}

CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def lint(folder: Path) -> str:
    """Return the report of the contracts on a copy of the package."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the section of each contract in the report on a copy of the package with every breach at once."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "vertex_registry", folder / "vertex_registry", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    kept = lint(folder)
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in kept, kept
    for module, line, _ in [*BREACHES.values(), *NEW_MODULES.values()]:
        with (folder / "vertex_registry" / module).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    report = lint(folder)
    assert f"Contracts: 0 kept, {len(CONTRACTS)} broken." in report, report
    heading = "|".join(re.escape(name) for name in CONTRACTS.values())
    parts = re.split(rf"(?m)^({heading})\n-+\n", report)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


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
    assert CONTRACTS.keys() == BREACHES.keys()


@pytest.mark.parametrize("contract", BREACHES)
def test_a_contract_notices_a_breach(sections: dict[str, str], contract: str) -> None:
    """Each contract is kept by the package, and broken by one line in the wrong place."""
    assert BREACHES[contract][2] in sections[CONTRACTS[contract]]


@pytest.mark.parametrize("contract", NEW_MODULES)
def test_a_contract_covers_new_modules(sections: dict[str, str], contract: str) -> None:
    """A module that isn't in any contract yet can't break one unnoticed."""
    assert NEW_MODULES[contract][2] in sections[CONTRACTS[contract]]
