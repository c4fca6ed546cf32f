"""The source distribution contains everything that its tests need."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder

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
