"""ZenML's command line in this process, in a home of its own."""

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


# ZenML reads them when it is imported, which the tests do.
os.environ.update(environment(Path(HOME.name)))

from click.testing import CliRunner  # noqa: E402  # see above
from zenml.cli.cli import cli  # noqa: E402


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
        self._shared: dict[str, str] = {}

    def try_(self, command: str | list[str]) -> Result:
        """Run one command, without its first word."""
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
        name = f"vertex_{next(self._numbers)}"
        options = [f"--{key}={value}" for key, value in settings.items()]
        self(["model-registry", "register", name, "--flavor=vertex", *options])
        self(f"stack register {name} -o default -a default -r {name} --set")
        return name

    def share(self, **settings: Any) -> str:
        """The same with a registry that no test changes, and that is made once, which takes time."""
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
