"""Error messages at a shell: every Python name becomes an option or a command that you can type as shown."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import vertex_registry
from vertex_registry import (
    AuthenticationError,
    HistoryUnknownError,
    InvalidArgumentError,
    OperationTimeoutError,
    RegistryClient,
    StateUnknownError,
    local_registry,
)
from vertex_registry.cli._invocation import Invocation
from vertex_registry.cli._messages import next_command, translate
from vertex_registry.cli._run import run
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(vertex_registry.__file__).parent
PYTHON: Final = re.compile(r"\b[A-Za-z_]+\((?! )|\b[a-z_]+=")

#: Modules whose messages no command can show.
NEVER_AT_A_SHELL: Final = frozenset(
    {
        "zenml.py",
        "mlflow.py",
        "mlflow_artifacts.py",
        "mlflow_connection.py",
        "pytest_plugin.py",
        "_loading.py",
        "_listing.py",
        "_reuse.py",
        "_records.py",
        "_transport.py",
    }
)
#: Messages about settings that commands don't have, so only Python code can show them.
PYTHON_ONLY: Final = re.compile(
    r"user_agent=|order_by=|serialization_format=|datetime\(|datetime\.now|quota=|"
    r"retry has to be|direction=|gpu=|managed_by=|archive_existing=|artifacts=|"
    r"transport=|RegistryClient\.update|named X\. |^Pass (?:X|list)\("
)


def messages() -> Iterator[str]:
    """Yield the texts of messages in the package, with X in place of each value."""
    for file in PACKAGE.rglob("*.py"):
        if {"emulator", "cli", "ui"} & set(file.parts) or file.name in NEVER_AT_A_SHELL:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        inside = {id(part) for text in texts for part in ast.walk(text)}
        documents = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | documents:
                yield node.value


def test_no_message_names_python_at_a_shell() -> None:
    """Each message that names a method or an argument is translated, unless no command can show it."""
    sentences = [text for text in messages() if " " in text and re.search(r"[A-Z].*\.", text) and PYTHON.search(text)]
    assert len(sentences) > 40
    translated = [translate(text, Invocation([], name="churn")) for text in sentences]

    assert [text for text in translated if PYTHON.search(text) and not PYTHON_ONLY.search(text)] == []


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = str(tmp_path / "my registry.db")
    with local_registry(path) as registry:
        for name in ("it's churn", "-churn"):
            registry.register_version(name, "gs://models/churn/1")
    return path


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["models", "show", "churm"], 3),
        (["versions", "show", "it's churn", "9"], 3),
        (["versions", "show", "it's churn", "not a version"], 3),
        (["versions", "show", "it's churn", "production"], 3),
        (["versions", "show", "it's churn", "latest"], 3),
        (["promote", "it's churn", "9", "production"], 3),
        (["rollback", "it's churn"], 3),
        (["history", "it's churn", "--at", "2001-01-01"], 1),
        (["alias", "remove", "it's churn", "1", "default"], 1),
        (["alias", "set", "it's churn", "1", "v1.0"], 1),
        (["versions", "register", "it's churn", "gs://models/2", "--alias", "default", "--no-make-default"], 1),
        (["versions", "register", "it's churn", "gs://models/2", "--container", "nothing"], 1),
        (["versions", "download", "it's churn", "--to", "."], 1),
        (["versions", "list", "it's churn", "--timeout", "nan"], 1),
    ],
)
def test_commands_in_messages_work(
    data: str, words: list[str], status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command after an error uses the same registry, and can be typed as it's shown."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert run([*words[:2], "--local", data, "--timeout", "0.1", *words[2:]]) in {status, 6}
    shown = capsys.readouterr().err
    assert not PYTHON.search(shown.replace(data, "")), shown
    commands = re.findall(r"`(vertex-registry [^`]*)`|^next:  (vertex-registry .*)$", shown, re.MULTILINE)
    for command in filter(None, (word for pair in commands for word in pair)):
        assert command.endswith(f"--local {shlex.quote(data)}"), command
        if not re.search(r"\b(?:SOURCE|VERSION|STAGE)\b", command):
            assert run(shlex.split(command)[1:]) == 0, command
    capsys.readouterr()


@pytest.mark.parametrize(
    "words",
    [
        ["versions", "show", "--", "-churn", "9"],
        ["versions", "show", "--", "-churn", "latest"],
        ["rollback", "--", "-churn"],
        ["promote", "--", "-churn", "9", "none"],
    ],
)
def test_a_name_that_starts_with_a_dash(data: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command in a message works with such a name too."""
    assert run([*words[: words.index("--")], "--local", data, *words[words.index("--") :]]) == 3
    following = capsys.readouterr().err.rpartition("next:  vertex-registry ")[2]
    assert "-- -churn" in following
    assert run(shlex.split(following)) == 0


def test_an_unknown_outcome_repeats_the_command() -> None:
    """The next command is the typed one with the error's request ID, which isn't added twice."""
    words = ["versions", "register", "churn", "gs://models/a b", "--local", "r.db"]
    unknown = StateUnknownError("It's unknown.", request_id="run-7")
    expected = "vertex-registry versions register churn 'gs://models/a b' --local r.db --request-id run-7"
    assert next_command(unknown, Invocation(words)) == expected
    late = OperationTimeoutError("It's still running.")
    late.request_id = "run-7"
    assert next_command(late, Invocation([*words, "--request-id", "run-7"])) == expected
    dashed = ["versions", "register", "--", "-churn", "gs://models/a"]
    expected = "vertex-registry versions register --request-id run-7 -- -churn gs://models/a"
    assert next_command(unknown, Invocation(dashed)) == expected


def test_a_setting_is_named_as_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """An error about a setting names the option."""
    assert run(["models", "list", "--location", "us-central1-a"]) == 1
    assert capsys.readouterr().err == (
        "error: --location 'us-central1-a' is a zone. Use its region: --location 'us-central1'.\n"
    )


def test_a_history_error_without_a_name() -> None:
    """Without a model name, the next command has a placeholder."""
    assert next_command(HistoryUnknownError("It isn't known."), Invocation([])) == "vertex-registry history NAME"


def test_an_unusable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a shell there's no registry in memory, so no message offers one."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "registry.db-wal").mkdir()  # SQLite can't put its log there
    for path, status in (("", 2), (str(tmp_path / "folder" / "registry.db"), 1)):
        assert run(["models", "list", "--local", path]) == status
        assert "in memory" not in capsys.readouterr().err


def test_on_an_emulator_the_local_registry_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cloud, it's a local registry that keeps artifacts, and the command to type next uses one."""
    for variable, value in {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"a model")
    with Emulator(rest_port=None) as emulator:
        with RegistryClient(endpoint=emulator.grpc, project="acme") as client:
            client.register_version("churn", "gs://models/churn/1")
            with pytest.raises(AuthenticationError, match=r"local_registry\(\), which keeps them in a folder"):
                client.download_version("churn")
            for call in (client.register_version, lambda name, source: client.upload(source, name=name)):
                for source in (folder, folder.as_uri()):
                    with pytest.raises(InvalidArgumentError, match=r"Use local_registry\(\), which does"):
                        call("churn", source)
        chosen = ["--endpoint", emulator.grpc, "--project", "acme"]
        assert run(["versions", "download", "churn", *chosen]) == 4
        shown = capsys.readouterr().err
        assert "Use --local FILE, which keeps them in a folder" in shown
        assert "next:" not in shown
        assert run(["versions", "register", "churn", str(folder), *chosen]) == 1
        shown = capsys.readouterr().err
    assert "Use --local FILE, which does" in shown
    assert f"\nnext:  vertex-registry versions register churn {folder} --local FILE\n" in shown
    with local_registry(tmp_path / "registry.db") as registry:
        registry.register_version("elsewhere", "gs://models/churn/1")
        with pytest.raises(AuthenticationError, match=r"^(?!.*local_registry)"):
            registry.download_version("elsewhere")  # it's in the cloud, and this is a local registry already
        registry.register_version("churn", folder, container="us-docker.pkg.dev/acme/serving/churn:7")
    with Emulator(tmp_path / "registry.db") as emulator:
        words = ["versions", "download", "--project=local-project", f"--endpoint={emulator.grpc}", "--to"]
        assert run([*words, str(tmp_path / "to"), "--", "churn", "1"]) == 3
        shown = capsys.readouterr().err
    assert "Name the registry's file with --local." in shown
    assert f"\nnext:  vertex-registry versions download --to {tmp_path}/to --local FILE -- churn 1\n" in shown
