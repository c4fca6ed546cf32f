"""Train three models, register and promote them, roll back, and ask what was in Production a moment ago.

Run it with ``make demo``. Everything happens on this machine: the local Vertex that comes with vertex-registry answers,
and artifacts go to a folder. On Google Cloud you change one line:
``RegistryClient(project=..., location=..., staging_bucket="gs://...")``.
"""

from __future__ import annotations

import datetime as dt
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

    with tempfile.TemporaryDirectory() as folder:
        registry_file = Path(folder) / "registry.db"
        with local_registry(registry_file) as registry:
            for algorithm, classifier in CANDIDATES.items():
                accuracy = round(float(classifier.fit(x_train, y_train).score(x_test, y_test)), 4)
                model = Path(folder) / algorithm
                model.mkdir()
                joblib.dump(classifier, model / "model.joblib")
                version = registry.register_version(
                    NAME,
                    model,  # the folder is copied to the registry's artifacts, and then registered
                    metadata={"algorithm": algorithm, "accuracy": accuracy},
                    # The newest image. To serve the model, the image must have the scikit-learn that wrote it: without
                    # container= the client picks that one, or warns you if there is none.
                    container="sklearn",
                )
                if version.version == "1":
                    registry.set_stage(NAME, version, Stage.PRODUCTION)
            print("Trained and registered. The first version is in Production:\n")
            show(registry.list_versions(NAME))

            best = registry.best_version(NAME, "accuracy")
            registry.set_stage(NAME, best, Stage.PRODUCTION, archive_existing=True)
            print(f"\nVersion {best.version} is the best, so it replaces version 1:\n")
            show(registry.list_versions(NAME))

        with local_registry(registry_file) as registry:
            print("\nClosed and opened again:\n")
            show(registry.list_versions(NAME))
            production = registry.get_version(NAME, stage=Stage.PRODUCTION)
            if production.version != best.version:
                raise SystemExit("The registry has forgotten which version is in Production.")

            downloaded = registry.download_version(NAME, production, Path(folder) / "downloaded")
            loaded = registry.load_version(NAME, production, trusted=True)
            trained = CANDIDATES[production.metadata["algorithm"]]
            if (loaded.predict(x_test) != trained.predict(x_test)).any():
                raise SystemExit("The downloaded model predicts something else than the trained one.")
            print(f"\nDownloaded version {production.version} to {downloaded}.")
            print(f"It predicts the same as the trained model for all {len(x_test)} patients.")

            before = dt.datetime.now(dt.UTC)
            print(f"\nRolled back: {registry.rollback(NAME)}.\n")
            show(registry.list_versions(NAME))
            earlier = registry.version_at(NAME, before)
            if earlier is None or earlier.version != best.version:
                raise SystemExit("The registry has forgotten what was in Production.")
            print(f"\nA moment ago, version {earlier.version} was in Production. Every change it remembers:\n")
            for change in registry.stage_history(NAME):
                print(f"  {change.changed_at:%H:%M:%S}  version {change.version} -> {change.stage}")


def show(versions: Iterable[ModelVersion]) -> None:
    """Print a table of versions."""
    print(f"  {'VERSION':<9}{'STAGE':<13}{'ACCURACY':<10}{'ALIASES':<10}ALGORITHM")
    for version in versions:
        stage = "-" if version.stage is Stage.NONE else version.stage
        accuracy, algorithm = version.metadata["accuracy"], version.metadata["algorithm"]
        print(f"  {version.version:<9}{stage:<13}{accuracy:<10}{', '.join(version.aliases):<10}{algorithm}")


if __name__ == "__main__":
    main()
