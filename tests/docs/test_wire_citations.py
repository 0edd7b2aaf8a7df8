"""Every citation of a page of docs/wire, in code, tests and docs, names a page and a section that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.docs.pages import ROOT

WIRE = ROOT / "docs" / "wire"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(WIRE.glob("*.md"))}
CITING = ("kernel", "plugins", "tests", "docs", "deploy", "examples", "bench")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".sh"}

_NUMBERS = r"\d+(?:(?:,| and| to)\s+\d+)*"
_SECTIONS = rf"(?:\s+(?:#\s+)?sections?\s+(?P<after>{_NUMBERS}))?"
CITATION = re.compile(rf"(?:section\s+(?P<before>\d+)\s+of\s+)?docs/wire/(?P<page>\w+)\.md{_SECTIONS}")
AMONG_PAGES = re.compile(rf"(?<![\w/.-])(?P<page>api|docker|kubernetes|execd)\.md\s+sections?\s+(?P<after>{_NUMBERS})")


def sections(page: str) -> set[int]:
    """The numbers of a page's sections."""
    return {int(number) for number in re.findall(r"^## (\d+)\. ", PAGES[page], re.MULTILINE)}


def cited(numbers: str) -> set[int]:
    """``1, 5 and 12`` are three sections, ``6 to 9`` are four."""
    spread = re.sub(r"(\d+)\s+to\s+(\d+)", lambda ends: _spelt(int(ends[1]), int(ends[2])), numbers)
    return {int(number) for number in re.findall(r"\d+", spread)}


def _spelt(first: int, last: int) -> str:
    return ", ".join(map(str, range(first, last + 1)))


def problems(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The citations of a text that lead nowhere."""
    wrong = []
    for match in pattern.finditer(text):
        found = match.groupdict()
        numbers = cited(", ".join(filter(None, (found.get("before"), found["after"]))))
        if found["page"] not in PAGES or not numbers <= sections(found["page"]):
            wrong.append(" ".join(match[0].split()))
    return wrong


def sources() -> Iterator[tuple[str, str]]:
    """(path, text) of every file that may cite the pages."""
    for path in (path for place in CITING for path in sorted((ROOT / place).rglob("*"))):
        if path.suffix in SUFFIXES and path.is_file():
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_each_citation_leads_to_a_section() -> None:
    # This file is left out: it cites what does not exist, to show that it is found.
    texts = {path: text for path, text in sources() if path != "tests/docs/test_wire_citations.py"}
    wrong = {path: found for path, text in texts.items() if (found := problems(text, CITATION))}
    assert not wrong
    assert sum(len(CITATION.findall(text)) for text in texts.values()) > 100, "the citations themselves were not found"


def test_nothing_cites_a_page_outside_the_repository() -> None:
    """The pages were once cited as ``contract/`` and a name, which nobody but their author could open."""
    outside = re.compile(r"\bcontract[/:,]?\s*(?:api|docker|kubernetes|execd)\.md\b")
    assert [path for path, text in sources() if outside.search(text)] == []


def test_each_reference_among_the_pages_leads_to_a_section() -> None:
    assert {page: found for page, text in PAGES.items() if (found := problems(text, AMONG_PAGES))} == {}


@pytest.mark.parametrize("page", PAGES)
def test_the_sections_of_a_page_are_numbered_in_order(page: str) -> None:
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", PAGES[page], re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("docs/wire/api.md section 6", False),
        ("docs/wire/api.md", False),
        ("docs/wire/api.md sections 3 to 9\nand 15", False),
        ("docs/wire/docker.md\nsections 2 to 4, docs/wire/kubernetes.md section 8", False),
        ("docs/wire/ingress.md section 1", True),
        ("docs/wire/api.md section 99", True),
        ("docs/wire/docker.md sections 12 to 14", True),
        ("docs/wire/docker.md\n    # sections 1, 5 and 77", True),
        ("section 40 of docs/wire/docker.md", True),
    ],
)
def test_what_leads_nowhere_is_found(text: str, wrong: bool) -> None:
    assert bool(problems(text, CITATION)) is wrong
