"""The guard of the documentation's language finds what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import prose

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
# A heading isn't a sentence. Neither is this.

You can write `prose.sentences(page)` here, e.g. in a test. It reads
across lines!

> [!NOTE]
> Your notes count.

* One item
* Another [one](https://example.com/a.b.c), with a link.

| a table | doesn't. Count. |
|---|---|

<!-- nor does
a comment -->

```python
"Nor. Does. Code."
```
"""
GOOD = "You can call your client whenever you like. "


def test_a_page_is_split_into_sentences() -> None:
    """Code, tables, headings and comments aren't prose, and every sentence knows its line."""
    assert prose.sentences(PAGE) == [
        (3, "You can write Code here, e.g. in a test."),
        (3, "It reads across lines!"),
        (7, "Your notes count."),
        (9, "One item"),
        (10, "Another one, with a link."),
    ]


def test_words_and_readers_are_counted() -> None:
    """A measure has the words a sentence, and how often the page says "you"."""
    counted = prose.measure(prose.sentences("You'll see. Your turn, and you know it."))

    assert counted == (8, 2, 3, 0)
    assert counted.mean == 4
    assert counted.per_thousand(counted.you) == 375


@pytest.mark.parametrize(
    "text",
    [
        "`x` is no path.",
        "Two models bear it.",
        "It tells the name.",
        "a sentence of Google's",
        "an error of ours",
        "Who finds it waits.",
        "It begins anew.",
        "what was asked for",
        "It is looked at.",
        "also by a thread",
        "It stands in a stage.",
        "The model is not there.",
        "the two houses",
        "It ends otherwise than before.",
        "What becomes of a fault?",
        "It works as it should.",
    ],
)
def test_quaint_phrases_are_found(text: str) -> None:
    """Each kind of phrase on the list counts once."""
    assert len(prose.quaint(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "There is no model.",
        "It is no longer used.",
        "Who calls it?",
        "Is there a way?",
        "A label tells them apart.",
        "the API of Google",
        "the end of Google's page",
    ],
)
def test_plain_phrases_are_left_alone(text: str) -> None:
    """What looks similar and is good English isn't counted."""
    assert prose.quaint(text) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("You know. " + "and so on " * 12, "page.md:1: 36 words in one sentence"),
        (GOOD + "you know " * 12, "16.0 words a sentence"),
        ("You know that it begins anew.", "quaint phrases"),
        ("The client retries.", '"you" 0.0 times'),
    ],
)
def test_the_guard_complains(text: str, complaint: str) -> None:
    """A long sentence, a long average, quaint phrases and a page without "you" are each reported."""
    assert any(complaint in line for line in prose.check({"page.md": prose.sentences(text)}))


def test_the_guard_is_silent() -> None:
    """Plain pages pass, and reference pages needn't say "you"."""
    pages = {"page.md": prose.sentences(GOOD), "docs/reference.md": prose.sentences("The client retries. " * 9)}

    assert list(prose.check(pages)) == []


def test_comments_and_docstrings_are_read() -> None:
    """A module's docstrings and comments count, also across lines. Its strings don't."""
    source = '"""Two houses."""\n\n\ndef f():\n    # `x` is\n    # no `anew`.\n    return "who does"  # Fine.\n'

    assert list(prose.check_modules({"m.py": prose.comments(source)})) == [
        'm.py:1: "houses" reads as if it were translated.',
        'm.py:5: "is no" reads as if it were translated.',
    ]


@pytest.mark.parametrize("folder", ["vertex_registry", "tests/live", "benchmarks", "examples"])
def test_every_folder_is_read(folder: str) -> None:
    """The guard reads the package, the tests, the benchmarks and the examples."""
    assert any(file.is_relative_to(prose.ROOT / folder) for file in prose.MODULES)


@pytest.mark.parametrize("page", prose.PAGES, ids=lambda page: page.relative_to(prose.ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link leads to a file that exists, and each anchor to a heading."""
    assert prose.broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    """A missing file and a missing heading are reported; other sites and code aren't."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` heading\n[a](page.md#a-b-heading) [b](#no) [c](no.md) [d](https://a.b/c#d)\n```\n[x](no)\n```\n"
    )

    assert prose.broken_links(page) == ["#no", "no.md"]
