"""What is cited: the year of a paper is that of its first version, which its arXiv identifier tells."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CITED = re.compile(r"((?:19|20)\d\d)\)?[^\n\d]{0,40}?(?:\n\s*)?arXiv:(\d\d)\d\d\.\d+")


def test_years_are_those_of_the_identifiers():
    folders = [ROOT / "rdlib", ROOT / "notebooks"]
    files = [p for folder in folders for p in folder.rglob("*") if p.suffix in (".py", ".md", ".ipynb")]
    cited = [(p.name, match) for p in [*files, ROOT / "README.md"] for match in CITED.finditer(p.read_text())]
    assert len(cited) > 20
    assert not [(name, match[0]) for name, match in cited if match[1] != "20" + match[2]]
