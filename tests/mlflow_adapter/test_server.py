"""MLflow's own server with a registry on Vertex: the requests of its clients and its pages."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "mlflow.md"
START = 120.0


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run MLflow's server with the command on the page, and return its address."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (line,) = re.findall(r"^mlflow (server .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    command = [str(Path(sys.executable).with_name("mlflow")), *shlex.split(line), "--port", str(port)]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # it takes long enough
    environment = ours | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            assert listens(process, port), (folder / "log").read_text()[-3_000:]
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers, and return whether it does."""
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return True
        except OSError:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    return False


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  # loopback
        body = answer.read()
    return json.loads(body) if body.startswith(b"{") else body.decode()


def test_the_server(server: str) -> None:
    """Clients without this package log, register, promote and load, and get errors with MLflow's codes."""
    mlflow.set_tracking_uri(server)
    mlflow.set_registry_uri(server)
    client, model = mlflow.MlflowClient(), LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with mlflow.start_run(experiment_id="0"):
        logged = mlflow.sklearn.log_model(model, name="model", registered_model_name="churn", pip_requirements=[])
    mlflow.register_model(logged.model_uri, "churn", tags={"validated": "yes"})
    client.create_registered_model("uplift", tags={"team": "growth"})
    client.set_registered_model_alias("churn", "Champion", "2")
    client.set_registered_model_tag("churn", "task", "who leaves?")
    client.transition_model_version_stage("churn", "2", "Production", archive_existing_versions=True)

    assert [found.name for found in client.search_registered_models()] == ["churn", "uplift"]
    champion = client.get_model_version_by_alias("churn", "Champion")
    assert (champion.version, champion.current_stage, champion.run_id) == ("2", "Production", logged.run_id)
    assert (champion.tags, client.get_registered_model("churn").tags) == ({"validated": "yes"}, {"task": "who leaves?"})
    assert list(mlflow.sklearn.load_model("models:/churn@Champion").predict([[0.0], [1.0]])) == [0, 1]
    for code, call in (
        ("RESOURCE_DOES_NOT_EXIST", lambda: client.get_model_version("churn", "9")),
        ("RESOURCE_ALREADY_EXISTS", lambda: client.create_registered_model("uplift")),
        ("INVALID_PARAMETER_VALUE", lambda: client.set_registered_model_alias("churn", "champion", "1")),
    ):
        with pytest.raises(MlflowException) as refused:
            call()
        assert refused.value.error_code == code

    # What the pages of the server request.
    api = f"{server}/ajax-api/2.0/mlflow"
    assert "<title>MLflow</title>" in get(server)
    listed = get(f"{api}/registered-models/search?max_results=25&order_by=name%20ASC")["registered_models"]
    assert [(found["name"], found.get("tags")) for found in listed] == [
        ("churn", [{"key": "task", "value": "who leaves?"}]),
        ("uplift", [{"key": "team", "value": "growth"}]),
    ]
    assert sorted(found["alias"] for found in listed[0]["aliases"]) == ["Champion", "default"]
    versions = get(f"{api}/model-versions/search?filter=name%3D%27churn%27&order_by=version_number%20ASC")
    assert [found["version"] for found in versions["model_versions"]] == ["1", "2"]
    assert "flavors:" in get(f"{server}/model-versions/get-artifact?path=MLmodel&name=churn&version=2")
