"""The Dockerfile, as far as it can be tested without Docker. `python -m tests.container` also installs the package."""

from __future__ import annotations

import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests import container
from vertex_registry import RegistryClient
from vertex_registry.emulator.__main__ import _parser

PAGE = (container.ROOT / "docs" / "container.md").read_text(encoding="utf-8")


def test_the_entry_point_serves_an_ordinary_user(tmp_path: Path) -> None:
    """The server listens on every interface, is healthy, answers to the allowed name, and keeps its data."""
    data = tmp_path / "data"
    data.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):  # noqa: S108  # it's open already
            folder.chmod(0o755)
    for start in (1, 2):
        process, addresses = container.serve(sys.executable, data, "--grpc-port", "0", "--rest-port", "0")
        try:
            assert addresses.keys() == {"grpc", "rest"}
            assert all("0.0.0.0:" in address for address in addresses.values())
            grpc, rest = (int(addresses[port].rpartition(":")[2]) for port in ("grpc", "rest"))
            assert container.is_healthy(sys.executable, rest)
            assert os.getuid() != 0 or data.joinpath("registry.db").stat().st_uid == container.NOBODY
            with RegistryClient(project="acme", endpoint=f"127.0.0.1:{grpc}") as registry:
                assert registry.register_version("churn", f"gs://models/churn/{start}").version == str(start)
            request = urllib.request.Request(
                f"http://127.0.0.1:{rest}/emulator/health", headers={"Host": "vertex:8471"}
            )
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310  # it's HTTP
                assert response.status == 200
            request.add_header("Host", "elsewhere")
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=10)  # noqa: S310  # likewise
        finally:
            process.terminate()
            assert process.wait(30) == 0
            assert process.stdout is not None
            process.stdout.close()
    assert not container.is_healthy(sys.executable, rest)


def test_the_image_is_not_root_and_names_its_ports() -> None:
    """The user, the ports and the volume agree with the emulator's options and the page."""
    image = container.read_image()
    defaults = _parser().parse_args(image.words("ENTRYPOINT")[3:])

    assert image.all("USER") == ["emulator"]
    assert image.all("EXPOSE") == [f"{defaults.grpc_port} {defaults.rest_port}"]
    assert image.all("VOLUME") == [str(Path(defaults.data).parent)]
    assert image.instructions.index(("USER", "emulator")) > max(
        position for position, (name, _) in enumerate(image.instructions) if name == "RUN"
    )
    assert f":{defaults.rest_port}/emulator/health" in " ".join(image.words("HEALTHCHECK"))
    for text in (f"-p {defaults.grpc_port}:{defaults.grpc_port}", f"-p {defaults.rest_port}:{defaults.rest_port}"):
        assert text in PAGE


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    """.dockerignore allows exactly the files that the build copies."""
    ignore = (container.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {source for arguments in container.read_image().all("COPY") for source in arguments.split()[:-1]}

    assert ignore[1] == "*"
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied
    assert all((container.ROOT / source).exists() for source in copied)
    project = (container.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for named in re.findall(r'^(?:readme = |license-files = \[|path = )"([^"]+)"', project, re.MULTILINE):
        assert named.partition("/")[0] in copied
