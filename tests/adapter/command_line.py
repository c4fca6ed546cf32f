"""Run ZenML's command line in this process, with a home of its own."""

from __future__ import annotations

import itertools
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import attrs

HOME = tempfile.TemporaryDirectory(prefix="zenml-")


def environment(folder: Path) -> dict[str, str]:
    """Return the environment that gives ZenML a home in a folder, and keeps it quiet and off the network."""
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


# ZenML reads them when it's imported.
os.environ.update(environment(Path(HOME.name)))

from click.testing import CliRunner  # noqa: E402  # see above
from zenml.cli.cli import cli  # noqa: E402


@attrs.frozen
class Result:
    """The outcome of a command: its exit code and its output."""

    code: int
    out: str
    error: str

    @property
    def line(self) -> str:
        """Return the one line that the command failed with."""
        assert self.code == 1, self
        lines = self.error.strip().splitlines()
        assert len(lines) == 1, self
        return lines[0]


class ZenML:
    """ZenML's command line, in this process."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._shared: dict[str, str] = {}

    def try_(self, command: str | list[str]) -> Result:
        """Run a command, given without its first word, and return its outcome."""
        words = shlex.split(command) if isinstance(command, str) else command
        done = CliRunner().invoke(cli, words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        error = "\n".join(line for line in done.stderr.splitlines() if not _is_noise(line))
        return Result(done.exit_code, done.stdout, error)

    def __call__(self, command: str | list[str]) -> str:
        """Run a command that has to succeed, and return its output."""
        done = self.try_(command)
        assert done.code == 0, (command, done)
        return done.out

    def use(self, **settings: Any) -> str:
        """Register a component with these settings, activate a stack that has it, and return its name."""
        name = f"vertex_{next(self._numbers)}"
        options = [f"--{key}={value}" for key, value in settings.items()]
        self(["model-registry", "register", name, "--flavor=vertex", *options])
        self(f"stack register {name} -o default -a default -r {name} --set")
        return name

    def share(self, **settings: Any) -> str:
        """Do the same with a component that no test changes. It's registered once, because that takes time."""
        key = repr(sorted(settings.items()))
        if key in self._shared:
            self(f"stack set {self._shared[key]}")
        else:
            self._shared[key] = self.use(**settings)
        return self._shared[key]


def _is_noise(line: str) -> bool:
    # ZenML declares -m twice for list-versions; click says so at every call.
    return (
        "UserWarning: The parameter -m is used more than once" in line or line.strip() == "rv = self._make_parser(ctx)"
    )
