"""Bring another model registry over: `migrate_mlflow`. It uses public names only, and needs the extra ``[mlflow]``."""

from vertex_registry.migration._mlflow import MlflowMigration, migrate_mlflow, plan_mlflow
from vertex_registry.migration._report import MigratedVersion, MigrationReport, Outcome

__all__ = ["MigratedVersion", "MigrationReport", "MlflowMigration", "Outcome", "migrate_mlflow", "plan_mlflow"]
