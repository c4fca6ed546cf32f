"""Write the fidelity report: each answer in which a service differs from the emulator, as text for an issue."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.cassettes.questions import Difference
    from tests.live.probes import Reply

_LONGEST: Final = 160


def report(
    replies: Sequence[Reply],
    differences: Iterable[Difference],
    *,
    about: str,
    conversations: int,
    redact: Callable[[str], str] = str,
) -> str:
    """Return the report as Markdown.

    Args:
        replies: The service's answers to the probes.
        differences: The other answers that differ from the emulator's.
        about: The sentence that says which service was compared, and when.
        conversations: How many conversations were compared.
        redact: A function that removes the project, the account and the bucket from a text.
    """
    differing = [reply for reply in replies if reply.differs]
    grouped = group(differences, redact)
    lines = ["# Fidelity report", "", about, ""]
    lines += [
        "## Questions",
        "",
        f"The service and the emulator answer {len(differing)} of {len(replies)} questions differently.",
        "",
    ]
    for reply in differing:
        lines += [
            f"### {reply.probe.letter}. {reply.probe.question}",
            "",
            f"* sent: {reply.probe.sends}",
            f"* the emulator: {' or '.join(reply.probe.emulator)}",
            f"* the service: **{redact(reply.answer)}**",
        ]
        lines += [f"* error message: {message}" for message in reply.messages]
        lines += [f"* the emulator's switch: `{reply.probe.switch}`"] if reply.probe.switch else []
        lines += [""]
    if agreed := [reply for reply in replies if not reply.differs]:
        lines += ["Both answer these questions in the same way:", ""]
        lines += [f"* {reply.probe.letter}. {reply.probe.question} {_cell(redact(reply.answer))}" for reply in agreed]
        lines += [""]
    lines += ["## Conversations", ""]
    lines += [
        f"{conversations} conversations were compared. Their answers have {len(grouped)} kinds of differences.",
        "",
    ]
    if grouped:
        lines += ["| RPC | field | the emulator | the service | times | for example |", "|---|---|---|---|---|---|"]
        for (rpc, where, given, recorded), ones in grouped.items():
            cells = (rpc, f"`{where}`", given, recorded, str(len(ones)), redact(ones[0].question))
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        lines += [""]
    return "\n".join(lines)


def group(
    differences: Iterable[Difference], redact: Callable[[str], str] = str
) -> dict[tuple[str, str, str, str], list[Difference]]:
    """Group differences by RPC, field, the emulator's value and the service's value."""
    grouped = defaultdict(list)
    for one in differences:
        grouped[one.rpc, one.where, _shown(one.given, redact), _shown(one.recorded, redact)].append(one)
    return dict(sorted(grouped.items()))


def _shown(value: Any, redact: Callable[[str], str]) -> str:
    text = redact(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _cell(text: str) -> str:
    return "".join(
        itertools.chain.from_iterable("\\|" if letter == "|" else letter for letter in text.replace("\n", " "))
    )
