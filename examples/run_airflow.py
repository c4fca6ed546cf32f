"""Run `airflow_dag.py` twice against the emulator, with a real Airflow: `make airflow`.

Google's operator always connects to googleapis.com, so its client is replaced. The rest is as in production.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from vertex_registry import RegistryClient
from vertex_registry.emulator import Emulator


def main() -> None:
    """Run the DAG and show what's registered."""
    with tempfile.TemporaryDirectory() as home, Emulator() as emulator:
        connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": "acme"}}
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent),
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
            "VERTEX_AI_EMULATOR_HOST": emulator.grpc,
        }
        from airflow.providers.google.cloud.hooks.vertex_ai.model_service import ModelServiceHook  # noqa: PLC0415
        from airflow.utils.db import initdb  # noqa: PLC0415
        from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415
        from google.cloud.aiplatform_v1 import ModelServiceClient  # noqa: PLC0415

        def local_client(*_: object, **__: object) -> ModelServiceClient:
            options = {"api_endpoint": emulator.rest}
            return ModelServiceClient(transport="rest", credentials=AnonymousCredentials(), client_options=options)

        ModelServiceHook.get_model_service_client = local_client
        initdb()
        sys.path.insert(0, str(Path(__file__).parent))
        import airflow_dag  # noqa: PLC0415

        workflow = airflow_dag.train_and_register()
        for _ in range(2):
            run = workflow.test()
            print(f"run {run.run_id}: {run.state}")
        with RegistryClient(project="acme") as registry:
            print("\nchurn, registered by this package:")
            print(registry.list_versions("churn"))
            print("\nModels that Google's operator uploaded, one for each run:")
            print(registry.duplicates())
        print("\nRequests:", len(emulator.requests()))


if __name__ == "__main__":
    main()
