"""The page of results: short, and its links lead to headings that are there."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SUMMARY = (RESULTS / "index.md").read_text()


def test_the_summary_has_less_than_500_words() -> None:
    assert len(SUMMARY.split()) < 500


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([a-z-]+\.md(?:#[a-z-]+)?)\)", SUMMARY))))
def test_a_link_leads_to_a_heading(link: str) -> None:
    page, _, heading = link.partition("#")
    lines = (RESULTS / page).read_text().splitlines()
    titles = [re.sub(r"[^a-z ]", "", line.lower()).strip() for line in lines if line.startswith("#")]
    assert not heading or heading in [title.replace(" ", "-") for title in titles]
