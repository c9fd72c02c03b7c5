"""Links between the pages of the documentation lead somewhere, to the section that they name."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "kproxy/**/*.md", "netns/**/*.md")
    for page in ROOT.glob(pattern)
)
LONGEST_PAGE = 400


def prose(text: str) -> Iterator[str]:
    """Yield the lines of a page that are not in a block of code."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the names of a page's sections, as GitHub makes them of the headings."""
    headings = (line.lstrip("#") for line in prose(page.read_text()) if re.match(r"#+ ", line))
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one).strip().lower() for one in headings)
    return frozenset(re.sub(r"[^\w\- ]", "", one).replace(" ", "-") for one in plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_section(page: Path) -> None:
    text = "\n".join(re.sub(r"`[^`]*`", "", line) for line in prose(page.read_text()))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), link
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_read_in_one_sitting(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert len(page.read_text().splitlines()) <= LONGEST_PAGE
