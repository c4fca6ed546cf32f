"""Train three models, register each as a version of one model, promote the best, and find it all again.

Run it with ``make demo``. Everything happens on this machine: the registry is a file, and what answers is the local
Vertex that comes with vertex-registry. On Vertex itself, only the line that makes the registry is another:
``RegistryClient(project=..., location=...)``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

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
        path = Path(folder) / "registry.db"
        with local_registry(path) as registry:
            for algorithm, classifier in CANDIDATES.items():
                accuracy = round(float(classifier.fit(x_train, y_train).score(x_test, y_test)), 4)
                version = registry.register_version(
                    NAME,
                    f"gs://models/tumour-classifier/{algorithm.replace(' ', '-')}",
                    metadata={"algorithm": algorithm, "accuracy": accuracy},
                )
                if version.version == "1":
                    registry.set_stage(NAME, version.version, Stage.PRODUCTION)
            print("Trained and registered; the first one went to Production:\n")
            show(registry.list_versions(NAME))

            best = max(registry.list_versions(NAME), key=lambda version: version.metadata["accuracy"])
            registry.set_stage(NAME, best.version, Stage.PRODUCTION, archive_existing=True)
            print(f"\nVersion {best.version} is the best, and takes its place:\n")
            show(registry.list_versions(NAME))

        with local_registry(path) as registry:
            print("\nClosed, and opened again:\n")
            show(registry.list_versions(NAME))
            production = registry.latest_version(NAME, stage=Stage.PRODUCTION)
            if production is None or production.version != best.version:
                raise SystemExit("The registry has forgotten which version is in Production.")
            print(f"\nIn Production: version {production.version}, {production.metadata['algorithm']}.")


def show(versions: Iterable[ModelVersion]) -> None:
    """Print what stands where."""
    print(f"  {'VERSION':<9}{'STAGE':<13}{'ACCURACY':<10}{'ALIASES':<10}ALGORITHM")
    for version in versions:
        stage = "-" if version.stage is Stage.NONE else version.stage
        accuracy, algorithm = version.metadata["accuracy"], version.metadata["algorithm"]
        print(f"  {version.version:<9}{stage:<13}{accuracy:<10}{', '.join(version.aliases):<10}{algorithm}")


if __name__ == "__main__":
    main()
