"""Compile `kubeflow_pipeline.py`, and run our components with Kubeflow's local runner: `make kubeflow`.

Google's component is compiled only: it's a container that always connects to googleapis.com.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kfp import compiler, local
from kubeflow_pipeline import both, register_and_promote

from vertex_registry import RegistryClient
from vertex_registry.emulator import Emulator


def main() -> None:
    """Compile both pipelines, run ours three times, and show what's registered."""
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        file = Path(folder, "both.yaml")
        compiler.Compiler().compile(both, str(file))
        print(f"compiled {file.name}: {len(file.read_text().splitlines())} lines")

        os.environ["VERTEX_AI_EMULATOR_HOST"] = emulator.grpc
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(Path(folder, "outputs")))
        where = {"project": "acme", "location": "us-central1"}
        for run, accuracy in [("a", 0.93), ("b", 0.90), ("b", 0.90)]:
            done = register_and_promote(source=f"gs://models/churn/{run}", accuracy=accuracy, run=run, **where)
            print(f"run {run}: version {done.output} is in Production")
        with RegistryClient(project="acme") as registry:
            print(registry.list_versions("churn"))


if __name__ == "__main__":
    main()
