"""Google's high-level SDK, ``google.cloud.aiplatform``, as people use it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Final

import pytest
import trustme
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud.aiplatform.models import ModelRegistry

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE: Final = "us-docker.pkg.dev/acme/images/serve:1"


@pytest.fixture(name="emulator")
def _emulator() -> Iterator[Emulator]:
    """Start an emulator, and point the SDK at it by its public settings: REST, plain text, no credentials."""
    with Emulator() as emulator:
        aiplatform.init(
            project="acme",
            location="us-central1",
            api_endpoint=emulator.rest,
            api_transport="rest",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
        yield emulator
        aiplatform.initializer.global_config.__init__()  # type: ignore[misc]


def upload(name: str = "churn", **options: object) -> aiplatform.Model:
    options = {"serving_container_image_uri": IMAGE, "artifact_uri": "gs://models/churn/1", **options}
    model: aiplatform.Model = aiplatform.Model.upload(display_name=name, **options)
    return model


@pytest.mark.usefixtures("emulator")
def test_a_model_is_uploaded_and_found() -> None:
    """``Model.upload``, ``Model(name)`` and ``Model.list`` see the same model."""
    model = upload(labels={"team": "growth"}, description="Who leaves?", serving_container_ports=[8080])

    assert (model.version_id, model.version_aliases, model.labels) == ("1", ["default"], {"team": "growth"})
    assert model.uri == "gs://models/churn/1"
    assert model.container_spec is not None
    assert model.container_spec.ports[0].container_port == 8080
    again = aiplatform.Model(model.resource_name)
    assert (again.display_name, again.description) == ("churn", "Who leaves?")
    assert again.versioned_resource_name == f"{model.resource_name}@1"
    (listed,) = aiplatform.Model.list(filter='display_name="churn"', order_by="create_time desc")
    assert listed.resource_name == model.resource_name
    assert aiplatform.Model.list(filter="labels.team=sales") == []


@pytest.mark.usefixtures("emulator")
def test_a_version_is_uploaded_under_its_model() -> None:
    """The SDK makes a new version the default unless you pass is_default_version=False. Aliases keep their order."""
    model = upload(version_aliases=["system-test-model", "testing"])
    assert model.version_aliases == ["system-test-model", "testing", "default"]
    second = upload(parent_model=model.name, is_default_version=False, version_description="The second")

    assert (second.version_id, second.version_aliases, second.version_description) == ("2", [], "The second")
    assert aiplatform.Model(model.name).version_id == "1"
    third = upload(parent_model=model.resource_name, version_aliases=["champion"])
    assert third.version_aliases == ["champion", "default"]
    assert aiplatform.Model(model.name).version_id == "3"
    assert aiplatform.Model(f"{model.name}@champion").version_id == "3"
    assert aiplatform.Model(model.name, version="1").version_aliases == ["system-test-model", "testing"]


@pytest.mark.usefixtures("emulator")
def test_a_model_is_updated() -> None:
    """``Model.update`` sends back everything that it read, with its etag, and returns the change."""
    model = upload(labels={"a": "1"})
    updated = model.update(display_name="renamed", description="new", labels={"b": "2"})

    assert (updated.display_name, updated.description) == ("renamed", "new")
    assert aiplatform.Model(model.name).display_name == "renamed"
    assert aiplatform.Model(model.name).labels["b"] == "2"
    upload(parent_model=model.name, is_default_version=False)
    assert model.update(description="newer").description == "newer"


@pytest.mark.usefixtures("emulator")
def test_a_model_is_copied_and_deleted() -> None:
    """``Model.copy`` creates a model in another location. ``Model.delete`` deletes one."""
    model = upload()
    copied = model.copy(destination_location="europe-west4", destination_model_id="copied")
    assert copied.resource_name.endswith("/locations/europe-west4/models/copied")
    assert copied.display_name == "churn"

    model.delete()

    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(model.resource_name)
    assert aiplatform.Model(copied.resource_name).version_id == "1"


@pytest.mark.usefixtures("emulator")
def test_the_registry_lists_and_moves_versions() -> None:
    """``ModelRegistry`` lists versions oldest first, reads one, moves aliases, and deletes one."""
    model = upload(version_description="The first")
    upload(parent_model=model.name, is_default_version=False, labels={"stage": "staging"})
    registry = ModelRegistry(model.resource_name)

    assert [version.version_id for version in registry.list_versions()] == ["1", "2"]
    assert [version.version_id for version in registry.list_versions(filter="labels.stage=staging")] == ["2"]
    assert registry.get_version_info("1").version_description == "The first"
    registry.add_version_aliases(["champion", "new-alias"], "2")
    registry.remove_version_aliases(["new-alias"], "champion")
    info = registry.get_version_info("champion")
    assert (info.version_id, info.version_aliases) == ("2", ["champion"])
    assert registry.get_model("champion").version_id == "2"
    registry.update_version("2", version_description="The second", labels={"stage": "production"})
    assert registry.get_version_info("2").version_description == "The second"
    assert registry.get_version_info("1").version_create_time == registry.list_versions()[0].version_create_time
    registry.add_version_aliases(["default"], "2")
    registry.delete_version("1")
    assert [version.version_id for version in registry.list_versions()] == ["2"]
    with pytest.raises(exceptions.BadRequest):
        registry.delete_version("2")


SCRIPT: Final = textwrap.dedent(
    """
    import sys

    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    aiplatform.init(
        project="acme",
        location="us-central1",
        api_endpoint=sys.argv[1],
        api_transport="grpc",
        credentials=AnonymousCredentials(),
    )
    model = aiplatform.Model.upload(display_name="churn", serving_container_image_uri=sys.argv[2])
    print(aiplatform.Model(model.resource_name).display_name, model.version_id, model.version_aliases)
    """
)


def test_the_sdk_speaks_grpc_over_tls(tmp_path: Path) -> None:
    """Over gRPC the SDK insists on TLS. With a certificate, the emulator supports it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    with Emulator(tls_cert=tmp_path / "server.pem", tls_key=tmp_path / "server.pem") as emulator:
        port = str(emulator.grpc).rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, f"localhost:{port}", IMAGE],
            env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "ca.pem")},
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.stdout.splitlines()[-1:] == ["churn 1 ['default']"], done.stderr
