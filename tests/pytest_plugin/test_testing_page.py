"""The page about testing: its service and tests run, and its table of requests is what the client sends."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import pytest
import yaml

from vertex_registry import RegistryClient, Stage
from vertex_registry.cli._program import cli
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE: Final = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS: Final = {
    name: code for name, code in re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL) if "/" not in name
}

# What each row of the table means. A row without a remark is a plain call of the method.
CALLS: Final[dict[str, Callable[[RegistryClient], Any]]] = {
    "`register_version`": lambda registry: registry.register_version("churn", "gs://models/churn/4"),
    "`get_version`": lambda registry: registry.get_version("churn"),
    "`get_version` by stage": lambda registry: registry.get_version("churn", stage=Stage.PRODUCTION),
    "`get_metadata`": lambda registry: registry.get_metadata("churn"),
    "`find_version`": lambda registry: registry.find_version("churn", "2"),
    "`latest_version`": lambda registry: registry.latest_version("churn"),
    "`list_versions`": lambda registry: list(registry.list_versions("churn")),
    "`best_version`": lambda registry: registry.best_version("churn", "accuracy"),
    "`diff`": lambda registry: registry.diff("churn", 1, 2),
    "`update_version`": lambda registry: registry.update_version("churn", 1, description="The first one."),
    "`set_stage`": lambda registry: registry.set_stage("churn", 1, Stage.STAGING),
    "`set_stage` with `archive_existing`": lambda registry: registry.set_stage(
        "churn", 3, Stage.PRODUCTION, archive_existing=True
    ),
    "`rollback`": lambda registry: registry.rollback("churn"),
    "`stage_history`": lambda registry: registry.stage_history("churn"),
    "`version_at`": lambda registry: registry.version_at("churn", dt.datetime.now(dt.UTC)),
    "`add_aliases`": lambda registry: registry.add_aliases("churn", 1, ["champion"]),
    "`remove_aliases`": lambda registry: registry.remove_aliases("churn", 1, ["champion"]),
    "`set_default`": lambda registry: registry.set_default("churn", 1),
    "`delete_version`": lambda registry: registry.delete_version("churn", 1),
    "`prune`": lambda registry: registry.prune("churn", keep=1),
    "`get_model`": lambda registry: registry.get_model("churn"),
    "`list_models`": lambda registry: list(registry.list_models()),
    "`rename_model`": lambda registry: registry.rename_model("churn", "churners"),
    "`update_model`": lambda registry: registry.update_model("churn", description="Who leaves."),
    "`delete_model`": lambda registry: registry.delete_model("churn"),
    "`duplicates`": lambda registry: registry.duplicates(),
}
# Those that aren't in the table: they have a sentence, or send nothing to Vertex.
ELSEWHERE: Final = {"close", "upload", "download", "download_version", "load_version", "to_aiplatform", "metadata_fits"}


def table() -> dict[str, tuple[str, str]]:
    """Return the table of requests: reads and writes of each row."""
    lines = PAGE[PAGE.index("| method |") :].splitlines()[2:]
    rows = lines[: next(position for position, line in enumerate(lines) if not line.startswith("|"))]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    return {name: (reads, writes) for name, reads, writes in cells}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.mark.parametrize("row", CALLS)
def test_each_method_sends_the_requests_in_the_table(row: str, emulator: Emulator) -> None:
    """A first call sends these reads and these writes, so many times each, in the order of their first request."""
    emulator.reset()
    with RegistryClient(project="acme", endpoint=emulator.grpc) as registry:
        for number in (1, 2, 3):
            registry.register_version("churn", f"gs://models/churn/{number}", metadata={"accuracy": number / 10})
        for number in (1, 2):
            registry.set_stage("churn", number, Stage.PRODUCTION, archive_existing=True)
    before = len(emulator.requests())
    with RegistryClient(project="acme", endpoint=emulator.grpc) as registry:
        CALLS[row](registry)
    sent = Counter(request.rpc for request in emulator.requests()[before:])  # in the order of their first request
    cells = [
        ", ".join(
            f"`{rpc}`" + (f" × {count}" if count > 1 else "")  # noqa: RUF001  # as on the page
            for rpc, count in sent.items()
            if rpc.startswith(("Get", "List")) is reading
        )
        for reading in (True, False)
    ]

    assert table()[row] == tuple(cells)


def test_every_method_is_on_the_page() -> None:
    """Each public method has a row, or a sentence."""
    methods = {name for name in vars(RegistryClient) if not name.startswith("_")}

    assert set(table()) == set(CALLS)
    assert {re.findall(r"`(\w+)`", row)[0] for row in CALLS} | ELSEWHERE == methods


def test_the_example_of_the_page(tmp_path: Path) -> None:
    """The service and its tests run as they are on the page."""
    assert set(BLOCKS) == {"service.py", "test_service.py"}
    for name, code in BLOCKS.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    installed = {point.value for point in importlib.metadata.entry_points(group="pytest11")}
    plugin = [] if "vertex_registry.pytest_plugin" in installed else ["-p", "vertex_registry.pytest_plugin"]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *plugin]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert f"{BLOCKS['test_service.py'].count('def test_')} passed" in done.stdout, done.stdout


def test_the_recipes_for_ci_are_workflows() -> None:
    """The recipes are YAML with the steps of a workflow, and their commands exist."""
    page = (Path(__file__).parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")
    recipe, registration = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (job,) = yaml.safe_load(registration)["jobs"].values()
    *_, command = job["steps"][-1]["run"].split(" ", 3)
    versions = cli.commands["versions"]
    assert isinstance(versions, click.Group)
    known = {name for each in versions.commands["register"].params for name in each.opts}
    assert set(re.findall(r"--[a-z-]+", command)) <= known
    workflow = yaml.safe_load(recipe)
    (job,) = workflow["jobs"].values()

    assert workflow["permissions"] == {"contents": "read"}
    assert [step["run"] for step in job["steps"] if "run" in step] == [
        "pip install vertex-registry pytest pytest-xdist",
        "pytest --numprocesses auto",
    ]
