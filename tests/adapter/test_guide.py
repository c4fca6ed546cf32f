"""Run docs/zenml.md from beginning to end: its commands and its pipeline, each in its own process."""

from __future__ import annotations

import os
import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.adapter.command_line import environment
from vertex_registry import RegistryClient
from vertex_registry._loading import FORMATS
from vertex_registry.zenml import VertexModelRegistryConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.adapter.command_line import ZenML
    from tests.storage.server import StorageServer
    from vertex_registry.emulator import Emulator
    from vertex_registry.zenml import VertexModelRegistry

GUIDE = Path(__file__).parents[2] / "docs" / "zenml.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(shell|python)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [
    command for kind, block in BLOCKS if kind == "shell" for command in re.split(r"\n+(?=[a-z])", block.strip())
]

# The one command that needs the network; other credentials, which test_access.py tests; and one that runs in this
# process, because each process of its own takes seconds.
ELSEWHERE = (
    "pip install",
    "zenml secret",
    "zenml model-registry models update-version",
    *(f"zenml model-registry register vertex_registry_{way}" for way in ("local", "secret")),
)


class Shell:
    """A folder and an environment to run commands in, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.done: set[str] = set()
        ours = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # it takes long enough
        self.environment = {**ours, **environment(folder), "PATH": path, "HOME": str(folder)}

    def run(self, command: str, answer: str = "") -> str:
        """Run a command that has to succeed, and return its output."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def run_the_guides(self, beginning: str, **values: str) -> str:
        """Run the guide's command that begins like this, with its placeholders filled in."""
        (command,) = [command for command in COMMANDS if command == beginning] or [
            command for command in COMMANDS if command.startswith(f"{beginning} ")
        ]
        self.done.add(command)
        for name, value in values.items():
            command = command.replace(f"<{name}>", value)
        assert "<" not in command, command
        return self.run(command, answer="y\n")


def script(folder: Path, *blocks: int) -> Path:
    """Write blocks of the guide's Python as one script."""
    code = [block for kind, block in BLOCKS if kind == "python"]
    file = folder / "run.py"
    file.write_text("\n".join(code[block] for block in blocks), encoding="utf-8")
    return file


def test_the_guide(tmp_path: Path, storage: StorageServer, key: Path, emulator: Emulator) -> None:
    """The guide's commands and its pipeline do what the guide says, against a real server."""
    shell = Shell(tmp_path)
    assert key.parent == tmp_path

    shell.run_the_guides("zenml init")
    shell.run_the_guides("zenml model-registry flavor register")
    assert "with access to" in shell.run_the_guides("zenml service-connector register", PROJECT_ID="acme")
    shell.run_the_guides("zenml model-registry register vertex_registry")
    shell.run_the_guides("zenml model-registry connect")
    shell.run_the_guides("zenml stack register")
    shell.run_the_guides("zenml model-registry update", BUCKET="guide")

    assert "Model version 1 registered in Model Registry" in shell.run(f"python {script(tmp_path, 0, 1).name}")
    (stored,) = [name for name in storage.names("guide") if name.endswith("model.pkl")]
    assert "artifact.pkl" not in stored
    with RegistryClient(project="acme") as client:
        registered = client.get_version("iris_clf", version_name="1")
    assert registered.artifact_uri == f"gs://guide/{stored.rpartition('/')[0]}"
    assert registered.description == "ZenML model registered after promotion"
    assert registered.managed_by == "zenml"

    assert re.search(r"iris_clf +1 ", shell.run_the_guides("zenml model-registry models list-versions iris_clf"))
    assert registered.artifact_uri in shell.run_the_guides("zenml model-registry models get-version")
    shell.run_the_guides("zenml model-registry models delete-version")
    with RegistryClient(project="acme") as client, pytest.raises(KeyError):
        client.get_model("iris_clf")

    left = [command for command in COMMANDS if command not in shell.done and not command.startswith(ELSEWHERE)]
    assert not left, "commands of the guide that were not run"
    sent = [request for request in emulator.requests() if "zenml/" in request.metadata["x-goog-api-client"]]
    assert sent
    assert all(request.metadata["authorization"].startswith("Bearer sha256:") for request in sent)


@pytest.mark.filterwarnings("ignore:Google has no serving image for scikit-learn")
def test_the_guides_python(
    zenml: ZenML,
    storage: StorageServer,
    emulator: Emulator,
    active: Callable[[], VertexModelRegistry],
    tmp_path: Path,
) -> None:
    """The guide's other Python, and its command that changes a version, do what the guide says."""
    storage.put("models", "churn/1/model.joblib", b"a model")
    storage.put("models", "churn/2/model.joblib", b"the next model")
    storage.put("models", "raw/weights.bin", b"another")
    (tmp_path / "artifact.pkl").write_bytes(
        pickle.dumps(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)))
    )
    zenml.use(staging_bucket="gs://guide")
    active().register_model_version("iris_clf", "1", str(tmp_path))

    (update,) = [command for command in COMMANDS if command.startswith("zenml model-registry models update-version")]
    changed = zenml(update.removeprefix("zenml "))
    assert re.search(r"STAGE +Production", changed)
    assert "{'owner': 'Ann'}" in changed
    ran = runpy.run_path(str(script(tmp_path, 2, 3, 4, 5, 6)))
    ran["registry"].cleanup()
    assert {request.message.model.display_name for request in emulator.requests() if request.rpc == "UploadModel"} == {
        "iris_clf",
        "churn",
    }


def test_the_settings_are_in_the_guide() -> None:
    """The guide's table has a row for each setting, and no others."""
    table = TEXT.partition("## Settings")[2].partition("## Errors")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(VertexModelRegistryConfig.model_fields)


def test_the_formats_are_in_the_guide() -> None:
    """The guide's table of formats is the one in the code."""
    table = TEXT.partition("<!-- the formats: begin -->\n")[2].partition("<!-- the formats: end -->")[0]
    rows = [f"| `{form.file}` | {form.library} | {'yes' if form.runs_code else 'no'} |" for form in FORMATS]

    assert table.splitlines()[2:] == rows
