"""With what credentials, and for which project, the registry talks to Vertex."""

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
    """What the requests carried as a credential."""
    return {request.metadata.get("authorization") for request in emulator.requests()}


def projects(emulator: Emulator) -> set[str]:
    """The projects that the requests named."""
    return {
        match[1]
        for request in emulator.requests()
        for match in [re.search(r"projects/([^/]+)/", str(request.message))]
        if match
    }


def connect(zenml: ZenML, options: str, **settings: str) -> str:
    """Make a registry that is connected to a connector of its own, and give the connector's name."""
    connector = f"connector-{uuid.uuid4().hex[:8]}"
    zenml(f"service-connector register {connector} --type gcp --resource-type gcp-generic {options}")
    zenml(f"model-registry connect {zenml.use(**settings)} --connector {connector}")
    return connector


def token(text: str) -> str:
    """What the emulator remembers of a token."""
    return f"Bearer sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_importing_the_flavor_imports_nothing_of_googles() -> None:
    """ZenML imports the flavor, its settings and the registry without waiting for Google's libraries."""
    code = (
        "import sys; from vertex_registry.zenml import VertexModelRegistryFlavor as F; f = F(); f.config_class; "
        "f.implementation_class; f.service_connector_requirements; "
        "print([m for m in sys.modules if m.startswith(('google.cloud.', 'google.api_core', 'google.auth', 'grpc'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_flavor() -> None:
    """The flavor has the name that ZenML documents, and its image can be built: the package is a requirement."""
    flavor = VertexModelRegistryFlavor()

    assert (flavor.name, flavor.type.value) == ("vertex", "model_registry")
    requirements = flavor.service_connector_requirements
    assert (requirements.connector_type, requirements.resource_type) == ("gcp", "gcp-generic")


def test_the_package_is_what_a_step_needs(registry: VertexModelRegistry) -> None:
    """An image that is built for a step has this package in it."""
    (requirement,) = registry.requirements

    assert re.fullmatch(r"vertex-registry\[zenml\]==[0-9.]+", requirement)


def test_the_guides_other_ways(
    zenml: ZenML,
    key: Path,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    active: Callable[[], VertexModelRegistry],
) -> None:
    """A registry without credentials and one with a secret work, as the guide has them."""
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
    """Without a connector and without settings, the machine's own credentials are taken, with their project."""
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
        registry.register_model_version("churn", "1", "gs://models/1", check_source=False)  # Cloud Storage is far away
        registry.cleanup()

        (carried,) = authorizations(emulator)
        assert str(carried).startswith("Bearer sha256:")
        assert projects(emulator) == {"acme"}


def test_no_credentials_at_all(
    zenml: ZenML, monkeypatch: pytest.MonkeyPatch, active: Callable[[], VertexModelRegistry], tmp_path: Path
) -> None:
    """Where there are no credentials either, that is one line that says how to come by some."""
    monkeypatch.delenv("VERTEX_AI_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    zenml.use(project_id="acme")

    with pytest.raises(RuntimeError, match="no usable credentials for Google Cloud. Type `gcloud auth"):
        active().list_models()
    assert "no usable credentials" in zenml.try_("model-registry models list").line


@pytest.mark.parametrize("way", ["credentials", "path in credentials", "service_account_path"])
def test_a_key_in_the_settings(
    zenml: ZenML, key: Path, emulator: Emulator, active: Callable[[], VertexModelRegistry], way: str
) -> None:
    """A service account's key is taken as text or as a path; its project is the default, and it is not shown."""
    zenml.use(**{way.rpartition(" ")[2]: f"@{key}" if way == "credentials" else key})
    registry = active()
    registry.list_models()

    assert projects(emulator) == {"acme"}
    (carried,) = authorizations(emulator)
    assert str(carried).startswith("Bearer sha256:")
    assert "PRIVATE KEY" not in repr(registry)


def test_a_token_of_a_connector(zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]) -> None:
    """The very token that a connector holds arrives at Vertex."""
    connect(zenml, "--auth-method=oauth2-token --token=abc123 --project_id=theirs")
    active().list_models()

    assert authorizations(emulator) == {token("abc123")}
    assert projects(emulator) == {"theirs"}


def test_a_connector_that_has_expired(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """A registry that is held for long takes its credentials anew when they have expired."""
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


def test_a_connector_that_is_no_longer_good(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """Where there are no fresh credentials, that is one line and a RuntimeError, and nothing is sent."""
    name = connect(zenml, "--auth-method=oauth2-token --token=before --project_id=theirs")
    zenml(f"service-connector update {name} --expires-at '2020-01-01 00:00:00' --no-verify")

    with pytest.raises(RuntimeError, match="can't be used: .*expired"):
        active().list_models()
    assert "can't be used" in zenml.try_("model-registry models list").line
    assert emulator.requests() == ()


def test_a_connector_for_another_project(
    zenml: ZenML, emulator: Emulator, active: Callable[[], VertexModelRegistry]
) -> None:
    """A registry and a connector that name different projects are one line that says what to do; nothing is sent."""
    connect(zenml, "--auth-method=oauth2-token --token=abc --project_id=theirs", project_id="ours")

    with pytest.raises(RuntimeError, match=r"for the project 'ours', and its service connector for 'theirs'"):
        active().register_model_version("churn", "1", "gs://models/churn/1")
    assert "remove-attribute" in zenml.try_("model-registry models list").line
    assert emulator.requests() == ()


def test_a_secret_that_is_missing(zenml: ZenML, emulator: Emulator) -> None:
    """A secret that is not there is not taken for a model that is not there."""
    zenml.use(credentials="{{nowhere.key}}")

    line = zenml.try_("model-registry models get churn").line
    assert "can't be used" in line
    assert "nowhere does not exist" in line
    assert emulator.requests() == ()


def test_credentials_that_are_none(zenml: ZenML, tmp_path: Path, emulator: Emulator) -> None:
    """A key that is cut off is one line, in which nothing of it is shown."""
    path = tmp_path / "cut.json"
    path.write_text(json.dumps({"type": "service_account", "private_key": "SECRET"})[:-1], encoding="utf-8")
    zenml.use(credentials=f"@{path}")

    line = zenml.try_("model-registry models list").line
    assert "isn't valid JSON" in line
    assert "SECRET" not in line
    assert emulator.requests() == ()


def test_credentials_without_anything_in_them(zenml: ZenML, key: Path, emulator: Emulator) -> None:
    """Credentials of an empty object are refused, and neither other ones nor none are taken in their place."""
    for settings in ({}, {"service_account_path": str(key)}):
        zenml.use(credentials="{}", **settings)
        assert "The credentials are of the type None" in zenml.try_("model-registry models list").line
    assert emulator.requests() == ()


def test_which_credentials_are_described(zenml: ZenML, key: Path) -> None:
    """ZenML's ``describe`` prints a key that is a setting, and not one that is in a secret: the guide says so."""
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
    """Every setting can be a reference to a secret but those that the guide names."""
    rule = re.search(r"^Each can be a reference to a secret, (.*)\.$", TEXT, re.MULTILINE)
    assert rule
    if f"`{setting}`" in rule[1]:
        with pytest.raises(ValueError, match=setting):
            VertexModelRegistryConfig.model_validate({setting: "{{nowhere.key}}"})
    else:
        VertexModelRegistryConfig.model_validate({setting: "{{nowhere.key}}"})


def test_a_setting_that_does_not_exist(zenml: ZenML) -> None:
    """A setting that does not exist is refused by ZenML, and no component is made."""
    with pytest.raises(ValueError, match="zone"):
        zenml.try_("model-registry register wrong --flavor=vertex --zone=here")

    assert "wrong" not in {component.name for component in Client().list_stack_components().items}
