"""Fixtures: a registry with some models, and its site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ui.documents import Browser
from vertex_registry import local_registry
from vertex_registry.ui import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex_registry import LocalRegistry


@pytest.fixture(scope="module")
def registry() -> Iterator[LocalRegistry]:
    """Return a registry that tests must not change: two models with versions, and 28 with one version each."""
    with local_registry(actor="ann@example.com") as registry:
        for number in range(28):
            registry.register_version(f"model-{number:02}", f"gs://models/{number}")
        registry.register_version("fraud", "gs://models/fraud/1", metadata={"auc": 0.9}, stage="staging")
        for number in range(1, 61):
            registry.register_version(
                "churn",
                f"gs://models/churn/{number}",
                version_name=f"1.{number}.0",
                metadata={
                    "accuracy": round(0.5 + (number * 37 % 61) / 200, 3),
                    "team": "growth" if number % 2 else "risk",
                    **({"rows": number} if number > 10 else {}),
                    "run": f"https://ci.example.com/runs/{number}",
                    "params": {"depth": 6},
                },
            )
        registry.update_model("churn", description="Which customers leave")
        registry.set_stage("churn", 40, "production", archive_existing=True)
        registry.set_stage("churn", 55, "production", archive_existing=True)
        registry.set_stage("churn", 60, "staging")
        registry.add_aliases("churn", 60, ["candidate"])
        yield registry


@pytest.fixture
def browser(registry: LocalRegistry) -> Browser:
    return Browser(Site(registry, registry_name="acme · us-central1"))
