"""Draw the layers of the package from its import contracts: `python -m tests.picture` writes docs/architecture.svg."""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "architecture.svg"

_WIDTH: Final = 900
_LEFT: Final = 20
_MIDDLE: Final = 560  # where the emulator's column starts
_ROW: Final = 44
_TOP: Final = 60
_GAP: Final = 8
_HEAD: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="HEIGHT" viewBox="0 0 {_WIDTH} HEIGHT" role="img"
  aria-label="The layers of the client and of the emulator; each may import the layers below it">
<style>
  text {{ font: 14px ui-monospace, monospace; text-anchor: middle; fill: #1f2328 }}
  .title {{ font: bold 16px system-ui, sans-serif }}
  .note {{ font: 13px system-ui, sans-serif; fill: #57606a }}
  rect {{ stroke: #57606a; rx: 6 }}
  .client {{ fill: #ddf4ff }}
  .emulator {{ fill: #fff8c5 }}
  .google {{ fill: #f6f8fa }}
</style>
<rect width="{_WIDTH}" height="HEIGHT" fill="#ffffff" stroke="none" />
"""


def layers(container: str) -> list[list[str]]:
    """Return the layers of a package from its contract, top first, each with its modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers" and contract["containers"] == [container]
    ]
    return [layer.strip("()").split(" | ") for layer in contract["layers"]]


def draw() -> str:
    """Draw the client on the left, the emulator on the right, and what they share below both."""
    columns = (
        ("client", "The client", _LEFT, _MIDDLE - _LEFT - 40, layers("vertex_registry")),
        ("emulator", "The emulator", _MIDDLE, _WIDTH - _MIDDLE - _LEFT, layers("vertex_registry.emulator")),
    )
    bottom = _TOP + _ROW * max(len(rows) for *_, rows in columns)
    height = bottom + _ROW + 50
    parts = [_HEAD.replace("HEIGHT", str(height))]
    for kind, title, left, width, rows in columns:
        parts.append(_text(left + width // 2, 34, title, "title"))
        for number, modules in enumerate(rows):
            parts += _row(kind, left, width, _TOP + _ROW * number, modules)
    parts += _row("google", _LEFT, _WIDTH - 2 * _LEFT, bottom + 10, ["Google's proto types"])
    note = "Each module may import what's below it in its column. Only local crosses over: it starts an emulator."
    parts.append(_text(_WIDTH // 2, height - 14, note, "note"))
    return "".join(parts) + "</svg>\n"


def _row(kind: str, left: int, width: int, top: int, modules: list[str]) -> list[str]:
    each = (width - _GAP * (len(modules) - 1)) // len(modules)
    parts = []
    for number, module in enumerate(modules):
        x = left + number * (each + _GAP)
        box = f'<rect class="{kind}" x="{x}" y="{top}" width="{each}" height="{_ROW - _GAP}" />\n'
        parts += [box, _text(x + each // 2, top + 23, module, "name")]
    return parts


def _text(x: int, y: int, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x}" y="{y}">{escape(text, quote=False)}</text>\n'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
