"""Servers of MLflow 2 over REST: every release in `RELEASES` is filled with its own client and migrated with MLflow 3.

`make mlflow-servers` runs this: pytest doesn't collect it by itself, because each release needs an environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import local_registry
from vertex_registry.migration import Outcome, migrate_mlflow
from vertex_registry.mlflow_encoding import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
#: The last release, the last before prompts and `databricks-sdk`, and the first, which has no aliases.
RELEASES = ("2.22.5", "2.9.2", "2.0.1")
START = 120.0
FILES = {"MLmodel", "code", "größe.txt", "model.pkl"}


@pytest.fixture(params=RELEASES)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the server of a release, fill it, and return its address and what its own client reads there."""
    programs = HERE.parents[1] / f".venv-mlflow-{request.param}" / "bin"
    assert programs.is_dir(), "Run make mlflow-servers"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "MLFLOW_TRACKING_URI": address}
    command = [str(programs / "mlflow"), "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", f"{tmp_path}/kept"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + START
            while not answers(f"{address}/health"):
                assert process.poll() is None, (tmp_path / "log").read_text()[-3_000:]
                assert time.monotonic() < end
                time.sleep(0.1)
            (tmp_path / "model").mkdir()
            filler = [str(programs / "python"), str(HERE / "older_client.py"), address, str(tmp_path / "model")]
            filled = subprocess.run(filler, env=environment, capture_output=True, text=True, check=False)
            assert filled.returncode == 0, filled.stderr[-3_000:]
            yield address, json.loads(filled.stdout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()  # noqa: S310  # loopback
    except OSError:
        return False
    return True


def test_a_server_of_mlflow_2(served: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """Every model, version and field comes over, with the files, and a second run finds all of it."""
    address, models = served
    with local_registry(tmp_path / "vertex.db") as registry:
        plan = migrate_mlflow(registry, address, dry_run=True)
        report = migrate_mlflow(registry, address)
        again = migrate_mlflow(registry, address)

        assert models.keys() == {line.source_model for line in report.versions}
        count = sum(len(model["versions"]) for model in models.values())
        assert plan.counts == {Outcome.PLANNED: count, Outcome.SKIPPED: 1}
        assert report.counts == {Outcome.MOVED: count, Outcome.SKIPPED: 1}  # the model without a version
        assert again.counts == {Outcome.EXISTS: count, Outcome.SKIPPED: 1}
        assert [line.reason for line in again.versions if line.number] == [""] * count
        assert {line.size for line in report.versions if line.number} == {plan.versions[0].size}
        for name, model in models.items():
            for number, theirs in model["versions"].items():
                ours = registry.get_version(name, version_name=number)
                metadata = registry.get_metadata(name, ours)
                originals = metadata.get("mlflow-aliases", {})
                assert {
                    "source": metadata["mlflow-source"],
                    "run_id": metadata["mlflow-run-id"],
                    "run_link": metadata.get("mlflow-run-link", ""),
                    "stage": str(ours.stage),
                    "description": ours.description,
                    "tags": {k.removeprefix("tag:"): v for k, v in metadata.items() if k not in FIELDS},
                    "created": metadata["mlflow-created"],
                    "updated": metadata["mlflow-updated"],
                } == theirs
                assert {originals.get(alias, alias) for alias in ours.aliases if alias != "default"} == {
                    alias for alias, holder in model["aliases"].items() if holder == int(number)
                }
                assert str(ours.container.image).endswith("sklearn-cpu.1-5:latest")  # type: ignore[union-attr]
                folder = registry.download_version(name, ours)
                assert {path.name for path in folder.rglob("*")} >= FILES
                assert (folder / "model.pkl").read_bytes() == b"a pickle"
