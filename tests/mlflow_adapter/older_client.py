"""Fill an MLflow server, and print what's in it as JSON. `older_servers.py` runs this with the server's own release.

Usage: python older_client.py ADDRESS FOLDER
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
  sklearn:
    pickled_model: model.pkl
    serialization_format: cloudpickle
    sklearn_version: 1.5.2
"""

Client: Any = MlflowClient  # its methods differ between releases


def fill(client: Any, folder: Path) -> None:
    """Create models with everything that the release has."""
    run = client.create_run(client.create_experiment("served"))
    run_id, stored = run.info.run_id, run.info.artifact_uri
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "model.pkl").write_bytes(b"a pickle")
    (folder / "code").mkdir()
    (folder / "code" / "größe.txt").write_text("notes")
    client.log_artifacts(run_id, str(folder), "model")
    deleted = client.create_run(run.info.experiment_id).info
    client.log_artifacts(deleted.run_id, str(folder), "model")

    client.create_registered_model("churn", tags={"Team": "Growth", "größe": "ß"}, description="Who leaves?\nAnd when?")
    tags = {"accuracy": "0.90", "None": "None", "a/b": "x" * 4_900, "mlflow-source": "a tag"}
    link = "https://mlflow.example.com/#/experiments/1"
    client.create_model_version("churn", f"{stored}/model", run_id, tags=tags, run_link=link, description="the first")
    client.create_model_version("churn", f"runs:/{run_id}/model", run_id)
    client.create_model_version("churn", f"{stored}/model", run_id)
    client.create_model_version("churn", f"{deleted.artifact_uri}/model", deleted.run_id)
    client.update_model_version("churn", "4", "the fourth")
    for number, stage in (("1", "Archived"), ("2", "Production"), ("4", "Production"), ("3", "Staging")):
        client.transition_model_version_stage("churn", number, stage)
    client.delete_model_version("churn", "3")
    client.delete_run(deleted.run_id)
    client.set_model_version_tag("churn", "2", "validated", "yes")

    client.create_registered_model("it's 100% ✓")
    client.create_model_version("it's 100% ✓", f"{stored}/model", run_id)
    client.create_registered_model("before")
    client.create_model_version("before", f"{stored}/model", run_id)
    client.rename_registered_model("before", "after")
    client.create_registered_model("empty")
    if hasattr(client, "set_registered_model_alias"):  # since 2.3
        client.set_registered_model_alias("churn", "Champion", "4")
        client.set_registered_model_alias("churn", "champion", "2")
        client.set_registered_model_alias("after", "2026", "1")
    if hasattr(client, "copy_model_version"):  # since 2.8
        client.copy_model_version("models:/churn/1", "copied")


def describe(client: Any) -> dict[str, Any]:
    """Return what the release says about its models and versions."""
    models: dict[str, dict[str, Any]] = {}
    for model in client.search_registered_models():
        read = client.get_registered_model(model.name)
        aliases = {alias: int(number) for alias, number in getattr(read, "aliases", {}).items()}
        models[model.name] = {
            "description": read.description or "",
            "tags": dict(read.tags),
            "aliases": aliases,
            "versions": {},
        }
    for version in client.search_model_versions(""):
        models[version.name]["versions"][str(version.version)] = {
            "source": version.source,
            "run_id": version.run_id or "",
            "run_link": version.run_link or "",
            "stage": version.current_stage,
            "description": version.description or "",
            "tags": dict(version.tags),
            "created": version.creation_timestamp,
            "updated": version.last_updated_timestamp,
        }
    return models


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _, address, made = sys.argv
    served = Client(address, address)
    fill(served, Path(made))
    sys.stdout.write(json.dumps(describe(served)))
