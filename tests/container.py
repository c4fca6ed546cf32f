"""Checks the Dockerfile without Docker: ``python -m tests.container``.

It installs the package as the image does, into a new virtual environment, and runs the image's entry point there. What
needs Docker itself isn't checked: the base image, the user that is created, and the volume.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
NOBODY: Final = 65534
#: Root becomes an ordinary user when all is imported, because a Python in root's own folder can't be started by others.
AS_NOBODY: Final = f"""
import os, sys, vertex_registry.emulator.__main__ as emulator, vertex_registry.emulator._http
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(emulator.main(sys.argv[1:]))
"""


class Image(NamedTuple):
    """What the Dockerfile says, by instruction."""

    instructions: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of each such instruction."""
        return [arguments for name, arguments in self.instructions if name == instruction]

    def words(self, instruction: str) -> list[str]:
        """Return the words of the only such instruction, which are in JSON."""
        (arguments,) = self.all(instruction)
        words: list[str] = json.loads(arguments[arguments.index("[") :])
        return words


def read_image() -> Image:
    """Return the instructions of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return Image([(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)])


def copy_context(image: Image, folder: Path) -> None:
    """Copy what the COPY instructions name."""
    for arguments in image.all("COPY"):
        *sources, target = arguments.split()
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.db*")
                shutil.copytree(ROOT / source, folder / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, folder / target)


def free_ports() -> tuple[int, int]:
    """Return two ports that nothing listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def serve(python: str, data: Path, *options: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start the image's entry point with this Python, as an ordinary user; return the process and its addresses."""
    words = [python if word == "python" else word for word in read_image().words("ENTRYPOINT")]
    words = [str(data / "registry.db") if word == "/data/registry.db" else word for word in words]
    if os.getuid() == 0:
        os.chown(data, NOBODY, NOBODY)
        position = words.index("-m")
        words[position : position + 2] = ["-c", AS_NOBODY]
    process = subprocess.Popen([*words, *options], cwd=data, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline() or "{}")


def is_healthy(python: str, port: int) -> bool:
    """Return what the image's health check says about that port."""
    words = [word.replace(":8471", f":{port}") for word in read_image().words("HEALTHCHECK")]
    return subprocess.run([python, *words[1:]], check=False, stderr=subprocess.DEVNULL).returncode == 0


def main() -> int:
    """Build and run the image."""
    image = read_image()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        source, data = folder / "src", folder / "data"
        source.mkdir()
        data.mkdir()
        copy_context(image, source)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = str(folder / "venv" / "bin" / "python")
        for step in image.all("RUN"):
            if step.startswith("python "):
                print("$", step)  # noqa: T201  # a script talks to people
                subprocess.run([python, *shlex.split(step)[1:]], cwd=source, check=True)
        shutil.rmtree(source)
        grpc, rest = free_ports()
        process, addresses = serve(python, data, "--grpc-port", str(grpc), "--rest-port", str(rest))
        try:
            print(addresses)  # noqa: T201  # likewise
            request = urllib.request.Request(f"http://127.0.0.1:{rest}/emulator/health", headers={"Host": "vertex"})
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310  # it's HTTP
                answered = response.status == 200
            good = answered and is_healthy(python, rest) and not re.search("root", image.all("USER")[0])
        finally:
            process.terminate()
            status = process.wait(30)
        print("fine" if good and status == 0 else "broken")  # noqa: T201  # likewise
        return 0 if good and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
