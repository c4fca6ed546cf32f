"""The source distribution contains everything that its tests need, and the dependencies exclude known holes."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def test_the_tests_of_the_sdist_can_be_collected(tmp_path: Path) -> None:
    """A package maintainer runs the tests from the sdist: it holds all of them, with what they read and import.

    Some are collected there, because to collect all of them takes long.
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
