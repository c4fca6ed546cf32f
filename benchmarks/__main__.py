"""Run every benchmark, and write the tables of docs/performance.md and the charts in docs/charts: `make bench`.

    python -m benchmarks [--quick] [--only client storage ...]

Each benchmark runs in its own process. It prints tables, each after a line such as ``== client``. A table replaces the
text between ``<!-- begin client -->`` and ``<!-- end client -->`` on the page. The rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = DOCS / "performance.md"
BENCHMARKS: Final = {
    "client": (),
    "growth": ("--charts", str(DOCS / "charts")),
    "emulator": (),
    "storage": (),
}


def run(name: str, *options: str) -> str:
    """Run a benchmark, print its output, and return it."""
    lines = []
    command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name], *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - one of these benchmarks
        assert process.stdout is not None  # noqa: S101 - it's a pipe
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise SystemExit(f"benchmarks.{name} failed with status {process.returncode}")
    return "".join(lines)


def tables(printed: str) -> dict[str, str]:
    """Return the tables in a benchmark's output, by name."""
    parts = re.split(r"^== (\S+)\n", printed, flags=re.MULTILINE)
    return {name: table.strip() for name, table in zip(parts[1::2], parts[2::2], strict=True)}


def replace_tables(page: str, found: dict[str, str], conditions: str) -> str:
    """Return a page with these tables in it, each followed by its conditions."""
    for name, table in found.items():
        block = f"<!-- begin {name} -->\n\n{table}\n\n{conditions}\n\n<!-- end {name} -->"
        before, begin, rest = page.partition(f"<!-- begin {name} -->")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not begin or not end:
            raise SystemExit(f"The page lacks the comments <!-- begin {name} --> and <!-- end {name} -->. Add them.")
        page = f"{before}{block}{after}"
    return page


def conditions(*, quick: bool) -> str:
    """Return a sentence with the date, the machine and the versions of the measurement."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("google-cloud-aiplatform", "google-cloud-storage", "moto")
    )
    how = "`make bench QUICK=1`" if quick else "`make bench`"
    load = os.getloadavg()[0]
    return (
        f"Measured on {time.strftime('%Y-%m-%d')} with {how}: {os.cpu_count()} cores, load average {load:.1f}, Python "
        f"{platform.python_version()}, {versions}."
    )


def main() -> None:
    """Run the benchmarks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes, for some minutes")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--dry-run", action="store_true", help="print, but don't change the page")
    given = parser.parse_args()
    for name in given.only:
        before = conditions(quick=given.quick)
        found = tables(run(name, *(["--quick"] if given.quick else [])))
        if not given.dry_run:
            PAGE.write_text(replace_tables(PAGE.read_text(encoding="utf-8"), found, before), encoding="utf-8")


if __name__ == "__main__":
    main()
