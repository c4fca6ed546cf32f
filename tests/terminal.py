"""Draw the README's picture: `python -m tests.terminal` draws docs/images/terminal.svg from a page's console block.

A test runs the block, so the picture shows what the command line prints.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "command-line.md"
FILE: Final = ROOT / "docs" / "images" / "terminal.svg"

_LABEL: Final = "A terminal: versions are registered, promoted, listed and rolled back."
_LINE: Final = 20  # pixels
_WIDTH: Final = 960
_MARGIN: Final = 16


def picture() -> str:
    """Return the picture of the page's second console block."""
    block = re.findall(r"(?m)^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    lines = block.splitlines()
    height = len(lines) * _LINE + 2 * _MARGIN
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_LABEL}">',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#1b1f24"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        color = "#7ee787" if line.startswith("$ ") else "#ffa198" if line.startswith("error:") else "#d0d7de"
        y = _MARGIN + number * _LINE + 14
        drawn.append(f'<text x="{_MARGIN}" y="{y}" fill="{color}">{html.escape(line)}</text>')
    return "\n".join([*drawn, "</g>", "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
