"""The packages contain what they should, and the dependencies exclude known holes.

The wheel has what runs, and the sdist everything that its tests need. `make release-check` installs them, too.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from hatch_build import readme_for_index
from tests.release import wrong_in_wheel

ROOT = Path(__file__).parents[1]


def test_the_tests_of_the_sdist_can_be_collected(tmp_path: Path) -> None:
    """A package maintainer runs the tests from the sdist: it holds all of them, with what they read and import.

    Only some are collected there, because collecting all of them takes long.
    """
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "--quiet",
            "--assert=plain",
            "tests/artifacts",
            "tests/client/test_serving.py",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-3_000:] + run.stderr[-3_000:]
    for place in ("tests", "docs", "cassettes", "examples", "benchmarks"):
        for file in (ROOT / place).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert (folder / file.relative_to(ROOT)).exists()
    for name in (
        "conftest.py",
        "hatch_build.py",
        "SECURITY.md",
        ".pre-commit-config.yaml",
        "Makefile",
        "Dockerfile",
        ".dockerignore",
        "pyproject.toml",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
    ):
        assert (folder / name).exists()


def test_the_wheel_has_what_runs_and_nothing_else(tmp_path: Path) -> None:
    """It holds each module, the marker of types, the licence, the extras and the entry points, but no test data."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    assert wrong_in_wheel(Path(built)) == []


@pytest.mark.parametrize(
    ("text", "without_a_home", "with_one"),
    [
        ("[A](docs/a.md#b) c", "A c", "[A](https://x.test/blob/v1/docs/a.md#b) c"),
        ("[A](https://b.test) [C](#c)", "[A](https://b.test) [C](#c)", "[A](https://b.test) [C](#c)"),
        ("![A](docs/a.svg)\n\nb", "b", "![A](https://x.test/raw/v1/docs/a.svg)\n\nb"),
        ("> [!NOTE]\n> A", "> A", "> A"),
    ],
)
def test_links_of_the_readme_fit_an_index(text: str, without_a_home: str, with_one: str) -> None:
    """A relative link leads nowhere on a package index, so it's made absolute, or text."""
    assert readme_for_index(text, None) == without_a_home
    assert readme_for_index(text, "https://x.test/blob/v1") == with_one


def test_the_hooks_run_what_make_check_runs() -> None:
    """The pre-commit hooks are the commands of `make check`, in its order."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck: ")[2].partition("\n\n")[0]
    checks = [line.strip("\t@") for line in recipe.splitlines()[1:]]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = [hook["entry"].removeprefix("sh -c '").removesuffix("'") for hook in local["hooks"]]

    places = {"BIN": ".venv/bin", "MLFLOW": ".venv-mlflow", "ZENML": ".venv-zenml"}

    assert hooks == [re.sub(r"\$\((\w+)\)", lambda found: places[found[1]], check) for check in checks]


def test_issue_templates_are_forms() -> None:
    """Each has a name, a description and fields, and the one for a live run requires its report."""
    forms = {
        file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
        if file.stem != "config"
    }
    required = {
        name: {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
        for name, form in forms.items()
        if form["name"] and form["description"]
    }

    assert required == {
        "bug": {"code", "seen", "expected", "where", "versions"},
        "idea": {"task"},
        "live-report": {"report", "location", "commit"},
    }


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("grpcio", "1.53.0"),  # CVE-2023-4785, CVE-2023-33953
        ("grpcio", "1.65.3"),  # CVE-2024-7246
        ("protobuf", "5.29.4"),  # CVE-2025-4565
        ("protobuf", "6.33.4"),  # CVE-2026-0994
        ("requests", "2.32.3"),  # CVE-2024-47081
        ("urllib3", "2.4.0"),  # CVE-2025-50181
    ],
)
def test_releases_with_known_holes_are_excluded(package: str, version: str) -> None:
    """The bounds of our dependencies keep out releases with holes that matter here."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = [Requirement(text) for text in pyproject["project"]["dependencies"]]
    (bound,) = (requirement.specifier for requirement in requirements if requirement.name == package)
    assert not bound.contains(version)
    assert bound.contains(importlib.metadata.version(package))
