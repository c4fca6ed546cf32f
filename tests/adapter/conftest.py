"""ZenML itself, with a store of its own in a temporary directory, and a Vertex of our own.

These tests run where ZenML is installed (`make test` has a virtual environment for them) and nowhere else. One ZenML
serves all tests of a process: making its store takes seconds. Each test has a registry component and a Vertex of its
own. The command line is run in this process, through click's own runner, and is the one that people type into.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.storage.server import StorageServer
    from vertex_registry.emulator import Emulator
    from vertex_registry.zenml import VertexModelRegistry

HERE = Path(__file__).parent
HOME = tempfile.TemporaryDirectory(prefix="zenml-")
INSTALLED = importlib.util.find_spec("zenml") is not None
collect_ignore_glob = [] if INSTALLED else ["test_*.py"]

FLAVOR = "vertex_registry.zenml.VertexModelRegistryFlavor"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory, and let the longest come first."""
    items.sort(key=lambda item: item.name != "test_the_guide")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.zenml)
            # ZenML and what it stands on warn of much; a warning from here is still an error.
            item.add_marker(pytest.mark.filterwarnings("ignore", "error:::vertex_registry"))


def environment(folder: Path) -> dict[str, str]:
    """The variables that give ZenML a home in that folder, and keep it quiet and off the network."""
    return {
        "ZENML_CONFIG_PATH": str(folder / "config"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_LOGGING_COLORS_DISABLED": "true",
        "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
        "AUTO_OPEN_DASHBOARD": "false",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


if INSTALLED:
    # ZenML reads them when it is imported, which the tests do.
    os.environ.update(environment(Path(HOME.name)))


@attrs.frozen
class Result:
    """What a command did: its exit code, and what it wrote."""

    code: int
    out: str
    error: str

    @property
    def line(self) -> str:
        """The one line that it failed with."""
        assert self.code == 1, self
        lines = self.error.strip().splitlines()
        assert len(lines) == 1, self
        return lines[0]


class ZenML:
    """ZenML's command line, in this process."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def try_(self, command: str | list[str]) -> Result:
        """Run one command, without its first word."""
        from click.testing import CliRunner  # noqa: PLC0415  # not in the other environment
        from zenml.cli.cli import cli  # noqa: PLC0415

        words = shlex.split(command) if isinstance(command, str) else command
        done = CliRunner().invoke(cli, words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        error = "\n".join(line for line in done.stderr.splitlines() if not _is_noise(line))
        return Result(done.exit_code, done.stdout, error)

    def __call__(self, command: str | list[str]) -> str:
        """What a command writes, which succeeds."""
        done = self.try_(command)
        assert done.code == 0, (command, done)
        return done.out

    def use(self, **settings: Any) -> str:
        """Register a model registry with these settings, make it the active stack's, and give its name."""
        number = next(self._numbers)
        name = f"vertex_{number}"
        options = [f"--{key}={value}" for key, value in settings.items()]
        self(["model-registry", "register", name, "--flavor=vertex", *options])
        self(f"stack register stack_{number} -o default -a default -r {name} --set")
        return name


def _is_noise(line: str) -> bool:
    # ZenML declares -m twice for list-versions; click says so at every call.
    return (
        "UserWarning: The parameter -m is used more than once" in line or line.strip() == "rv = self._make_parser(ctx)"
    )


@pytest.fixture(scope="session")
def zenml() -> Iterator[ZenML]:
    """ZenML with the flavor registered, in a store that ends with the tests."""
    work = Path(HOME.name, "work")
    work.mkdir()
    with contextlib.chdir(work):
        zenml = ZenML()
        zenml("init")
        zenml(f"model-registry flavor register {FLAVOR}")
        yield zenml


@pytest.fixture(scope="session")
def _buckets(storage_server: StorageServer) -> None:
    for bucket in ("staging", "guide", "models"):
        storage_server.make_bucket(bucket)


@pytest.fixture
def storage(_buckets: None, storage_emulator: StorageServer) -> StorageServer:
    """A storage server with some buckets; to be asked for before the emulator, which then looks into it."""
    return storage_emulator


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A Vertex of this test's own, which ``VERTEX_AI_EMULATOR_HOST`` names."""
    from vertex_registry.emulator import Emulator  # noqa: PLC0415  # Google's libraries take a second

    with Emulator() as emulator:
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", str(emulator.grpc))
        yield emulator
        assert not emulator.faults(), "a planned fault was not used up"


@pytest.fixture
def component(zenml: ZenML, emulator: Emulator) -> str:
    """The name of a registry component without settings, in the active stack."""
    del emulator
    return zenml.use()


@pytest.fixture
def active() -> Iterator[Callable[[], VertexModelRegistry]]:
    """What gives the active stack's registry, as a step gets it."""
    made: list[VertexModelRegistry] = []

    def active() -> VertexModelRegistry:
        from zenml.client import Client  # noqa: PLC0415  # likewise

        registry = cast("VertexModelRegistry", Client().active_stack.model_registry)
        made.append(registry)
        return registry

    yield active
    for registry in made:
        registry.cleanup()


@pytest.fixture
def registry(component: str, active: Callable[[], VertexModelRegistry]) -> VertexModelRegistry:
    """The registry without settings."""
    del component
    return active()


@pytest.fixture
def key(emulator: Emulator, tmp_path: Path) -> Path:
    """The file of a service account's key, whose tokens the emulator hands out."""
    return write_key(tmp_path / "vertex-registry-sa.json", f"{emulator.rest}/token")


def write_key(path: Path, token_uri: str, project: str = "acme") -> Path:
    """Write the key of a service account that does not exist; it is made here, and opens nothing."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # not in the other environment
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = f"registry@{project}.iam.gserviceaccount.com"
    fields = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": account,
        "client_id": "1",
        "auth_uri": f"{token_uri}/auth",
        "token_uri": token_uri,
        "auth_provider_x509_cert_url": f"{token_uri}/certs",
        "client_x509_cert_url": f"{token_uri}/certs/{account}",
        "universe_domain": "googleapis.com",
    }
    path.write_text(json.dumps(fields), encoding="utf-8")
    os.chmod(path, 0o600)  # noqa: PTH101
    return path
