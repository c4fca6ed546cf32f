"""Train three models, register each as a version of one model, promote the best, and predict with it again.

Run it with ``make demo``. Everything happens on this machine: what answers is the local Vertex that comes with
vertex-registry, and a local storage server. On Google Cloud only the line that makes the registry is another:
``RegistryClient(project=..., location=..., staging_bucket="gs://...")``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from storage_server import storage_server  # type: ignore[import-not-found]  # beside this script

from vertex_registry import Stage, local_registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vertex_registry import ModelVersion

NAME = "Tumour classifier"

CANDIDATES = {
    "decision tree": DecisionTreeClassifier(max_depth=3, random_state=0),
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "random forest": RandomForestClassifier(n_estimators=50, random_state=0),
}


def main() -> None:
    """Run the whole story."""
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)

    with tempfile.TemporaryDirectory() as folder, storage_server("models"):
        registry_file = Path(folder) / "registry.db"
        with local_registry(registry_file, staging_bucket="gs://models") as registry:
            for algorithm, classifier in CANDIDATES.items():
                accuracy = round(float(classifier.fit(x_train, y_train).score(x_test, y_test)), 4)
                model = Path(folder) / algorithm
                model.mkdir()
                joblib.dump(classifier, model / "model.joblib")
                version = registry.register_version(
                    NAME,
                    model,  # the folder is uploaded, and then registered
                    metadata={"algorithm": algorithm, "accuracy": accuracy},
                    # The newest image there is. One that serves has to be of the scikit-learn that wrote the model:
                    # without container= the image follows it, or a warning says that there is none.
                    container="sklearn",
                )
                if version.version == "1":
                    registry.set_stage(NAME, version.version, Stage.PRODUCTION)
            print("Trained, uploaded and registered; the first one went to Production:\n")
            show(registry.list_versions(NAME))

            best = max(registry.list_versions(NAME), key=lambda version: version.metadata["accuracy"])
            registry.set_stage(NAME, best.version, Stage.PRODUCTION, archive_existing=True)
            print(f"\nVersion {best.version} is the best, and takes its place:\n")
            show(registry.list_versions(NAME))

        with local_registry(registry_file) as registry:
            print("\nClosed, and opened again:\n")
            show(registry.list_versions(NAME))
            production = registry.latest_version(NAME, stage=Stage.PRODUCTION)
            if production is None or production.version != best.version:
                raise SystemExit("The registry has forgotten which version is in Production.")

            downloaded = registry.download_version(NAME, production.version, Path(folder) / "downloaded")
            loaded = registry.load_version(NAME, production.version, trusted=True)
            trained = CANDIDATES[production.metadata["algorithm"]]
            if (loaded.predict(x_test) != trained.predict(x_test)).any():
                raise SystemExit("What was downloaded does not predict what was trained.")
            print(f"\nIn Production: version {production.version}, {production.metadata['algorithm']}.")
            print(f"Downloaded to {downloaded}: predicts for {len(x_test)} patients what the trained one did.")


def show(versions: Iterable[ModelVersion]) -> None:
    """Print what stands where."""
    print(f"  {'VERSION':<9}{'STAGE':<13}{'ACCURACY':<10}{'ALIASES':<10}ALGORITHM")
    for version in versions:
        stage = "-" if version.stage is Stage.NONE else version.stage
        accuracy, algorithm = version.metadata["accuracy"], version.metadata["algorithm"]
        print(f"  {version.version:<9}{stage:<13}{accuracy:<10}{', '.join(version.aliases):<10}{algorithm}")


if __name__ == "__main__":
    main()
