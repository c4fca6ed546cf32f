"""Which credentials and which project the registry uses."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import shlex
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
import trustme
from zenml.client import Client

from tests.adapter.test_guide import COMMANDS, TEXT
from vertex_registry.emulator import Emulator
from vertex_registry.zenml import VertexModelRegistryConfig, VertexModelRegistryFlavor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.adapter.command_line import ZenML
    from vertex_registry.zenml import VertexModelRegistry


def authorizations(emulator: Emulator) -> set[str | None]:
    """Return the authorization headers of the requests."""
    return {request.metadata.get("authorization") for request in emulator.requests()}


def projects(emulator: Emulator) -> set[str]:
    """Return the projects that the requests named."""
    return {
        match[1]
        for request in emulator.requests()
        for match in [re.search(r"projects/([^/]+)/", str(request.message))]
        if match
    }


def connect(zenml: ZenML, options: str, **settings: str) -> str:
    """Connect a new registry to a new connector, and return the connector's name."""
    connector = f"connector-{uuid.uuid4().hex[:8]}"
    zenml(f"service-connector register {connector} --type gcp --resource-type gcp-generic {options}")
    zenml(f"model-registry connect {zenml.use(**settings)} --connector {connector}")
    return connector


def token(text: str) -> str:
    """Return what the emulator records of a token."""
    return f"Bearer sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_importing_the_flavor_imports_nothing_from_google() -> None:
    """ZenML can import the flavor, its settings and the registry without loading Google's libraries."""
    code = (
        "import sys; from vertex_registry.zenml import VertexModelRegistryFlavor as F; f = F(); f.config_class; "
        "f.implementation_class; f.service_connector_requirements; "
        "print([m for m in sys.modules if m.startswith(('google.cloud.', 'google.api_core', 'google.auth', 'grpc'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_flavor() -> None:
    """The flavor has the name that ZenML documents, and requires a GCP service connector."""
    flavor = VertexModelRegistryFlavor()

    assert (flavor.name, flavor.type.value) == ("vertex", "model_registry")
    requirements = flavor.service_connector_requirements
    assert (requirements.connector_type, requirements.resource_type) == ("gcp", "gcp-generic")


def test_the_package_is_what_a_step_needs(registry: VertexModelRegistry) -> None:
    """An image that's built for a step contains this package."""
    (requirement,) = registry.requirements

    assert re.fullmatch(r"vertex-registry\[zenml\]==[0-9.]+", requirement)


def test_the_guides_other_ways(
    zenml: ZenML,
    key: Path,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    active: Callable[[], VertexModelRegistry],
) -> None:
    """The guide's registries without credentials and with a secret work."""
    monkeypatch.chdir(key.parent)
    others = [
        command
        for command in COMMANDS
        if command.startswith("zenml secret")
        or "vertex_registry_local" in command
        or "vertex_registry_secret" in command
    ]
    assert len(others) == 3
    for command in others:
        zenml(shlex.split(command.replace("\\\n", " "))[1:])
    for way in ("local", "secret"):
        zenml(f"stack register stack_{way} -o default -a default -r vertex_registry_{way} --set")
        active().register_model_version(way, "1", "gs://models/1")

    carried = {
        request.message.model.display_name: request.metadata.get("authorization")
        for request in emulator.requests()
        if request.rpc == "UploadModel"
    }
    assert carried["local"] is None
    assert str(carried["secret"]).startswith("Bearer sha256:")
    assert projects(emulator) >= {"acme"}


def test_application_default_credentials(
    zenml: ZenML, key: Path, monkeypatch: pytest.MonkeyPatch, active: Callable[[], VertexModelRegistry], tmp_path: Path
) -> None:
    """Without a connector and settings, the registry uses application default credentials and their project."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    monkeypatch.delenv("VERTEX_AI_EMULATOR_HOST")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    with Emulator(storage="", tls_cert=tmp_path / "server.pem", tls_key=tmp_path / "server.pem") as emulator:
        port = str(emulator.rest).rpartition(":")[2]
        zenml.use(location="us-central1", api_endpoint=f"https://localhost:{port}", api_transport="rest")
        registry = active()
        registry.register_model_version("churn", "1", "gs://models/1", check_source=False)  # no network here
        registry.cleanup()

        (carried,) = authorizations(emulator)
        assert str(carried).startswith("Bearer sha256:")
        assert projects(emulator) == {"acme"}


def test_no_credentials_at_all(
    zenml: ZenML, monkeypatch: pytest.MonkeyPatch, active: Callable[[], VertexModelRegistry], tmp_path: Path
) -> None:
    """If there are no credentials at all, one line says how to get some."""
    monkeypatch.delenv("VERTEX_AI_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    zenml.use(project_id="acme")

    with pytest.raises(RuntimeError, match="nothing.json' can't be read: .* Run `gcloud auth"):
        active().list_models()
    assert "nothing.json' can't be read" in zenml.try_("model-registry models list").line


@pytest.mark.parametrize("way", ["credentials", "path in credentials", "service_account_path"])
def test_a_key_in_the_settings(
    zenml: ZenML, key: Path, emulator: Emulator, active: Callable[[], VertexModelRegistry], way: str
) -> None:
    """A service account key works as text or as a path. Its project is the default, and ``repr`` hides the key."""
    zenml.use(**{way.rpartition(" ")[2]: f"@{key}" if way == "credentials" else key})
    registry = active()
    registry.list_models()

    assert projects(emulator) == {"acme"}
    (carried,) = authorizations(emulator)
    assert str(carried).startswith("Bearer sha256:")
    assert "PRIVATE KEY" not in repr(registry)


def test_a_token_of_a_connector(zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]) -> None:
    """Vertex gets exactly the token that a connector holds."""
    connect(zenml, "--auth-method=oauth2-token --token=abc123 --project_id=theirs")
    active().list_models()

    assert authorizations(emulator) == {token("abc123")}
    assert projects(emulator) == {"theirs"}


def test_a_connector_that_has_expired(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """A registry that's used for a long time requests new credentials when they have expired."""
    name = connect(zenml, "--auth-method=oauth2-token --token=before --project_id=theirs")
    registry = active()
    registry.list_models()
    registry.list_models()
    assert authorizations(emulator) == {token("before")}

    zenml(f"service-connector update {name} --token=after")
    held = registry.get_connector()
    assert held is not None
    held.expires_at = dt.datetime(2020, 1, 1)  # noqa: DTZ001  # as ZenML keeps it
    assert registry.connector_has_expired()
    registry.list_models()

    assert authorizations(emulator) == {token("before"), token("after")}
    assert not registry.connector_has_expired()


def test_a_connector_without_fresh_credentials(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """If there are no fresh credentials, you get one line and a RuntimeError, and nothing is sent."""
    name = connect(zenml, "--auth-method=oauth2-token --token=before --project_id=theirs")
    zenml(f"service-connector update {name} --expires-at '2020-01-01 00:00:00' --no-verify")

    with pytest.raises(RuntimeError, match="can't be used: .*expired"):
        active().list_models()
    assert "can't be used" in zenml.try_("model-registry models list").line
    assert emulator.requests() == ()


def test_a_connector_for_another_project(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """If the registry and its connector name different projects, one line says what to do, and nothing is sent."""
    connect(zenml, "--auth-method=oauth2-token --token=abc --project_id=theirs", project_id="ours")

    with pytest.raises(RuntimeError, match=r"for the project 'ours', and its service connector for 'theirs'"):
        active().register_model_version("churn", "1", "gs://models/churn/1")
    assert "remove-attribute" in zenml.try_("model-registry models list").line
    assert emulator.requests() == ()


def test_a_missing_secret(zenml: ZenML, emulator: Emulator) -> None:
    """A missing secret isn't reported as a missing model."""
    zenml.use(credentials="{{nowhere.key}}")

    line = zenml.try_("model-registry models get churn").line
    assert "can't be used" in line
    assert "nowhere does not exist" in line
    assert emulator.requests() == ()


def test_invalid_credentials(zenml: ZenML, tmp_path: Path, emulator: Emulator) -> None:
    """A truncated key is one line that doesn't show any of it."""
    path = tmp_path / "cut.json"
    path.write_text(json.dumps({"type": "service_account", "private_key": "SECRET"})[:-1], encoding="utf-8")
    zenml.use(credentials=f"@{path}")

    line = zenml.try_("model-registry models list").line
    assert "isn't valid JSON" in line
    assert "SECRET" not in line
    assert emulator.requests() == ()


def test_credentials_without_anything_in_them(zenml: ZenML, key: Path, emulator: Emulator) -> None:
    """Credentials without content are refused, and no other credentials are used instead."""
    for settings in ({}, {"service_account_path": str(key)}):
        zenml.use(credentials="{}", **settings)
        assert "credentials is empty. Leave it out" in zenml.try_("model-registry models list").line
    assert emulator.requests() == ()


def test_which_credentials_are_described(zenml: ZenML, key: Path) -> None:
    """ZenML's ``describe`` prints a key in a setting, but not one in a secret, as the guide says."""
    plain = zenml.use(credentials=f"@{key}")
    printed = zenml(f"model-registry describe {plain}")
    assert "PRIVATEKEY" in "".join(filter(str.isalpha, printed))  # a table breaks a text wherever it is full
    zenml(f"secret create described --key=@{key}")
    secret = zenml.use(credentials="{{described.key}}")
    shown = zenml(f"model-registry describe {secret}")
    assert "described.key" in shown
    assert "PRIVATE KEY" not in shown


@pytest.mark.parametrize("setting", sorted(VertexModelRegistryConfig.model_fields))
def test_which_settings_can_be_secrets(setting: str) -> None:
    """Every setting can be a reference to a secret, except those that the guide names."""
    rule = re.search(r"^Each can be a reference to a secret, (.*)\.$", TEXT, re.MULTILINE)
    assert rule
    if f"`{setting}`" in rule[1]:
        with pytest.raises(ValueError, match=setting):
            VertexModelRegistryConfig.model_validate({setting: "{{nowhere.key}}"})
    else:
        VertexModelRegistryConfig.model_validate({setting: "{{nowhere.key}}"})


def test_a_setting_that_does_not_exist(zenml: ZenML) -> None:
    """ZenML refuses a setting that doesn't exist, and creates no component."""
    with pytest.raises(ValueError, match="zone"):
        zenml.try_("model-registry register wrong --flavor=vertex --zone=here")

    assert "wrong" not in {component.name for component in Client().list_stack_components().items}
