"""The numbers of the instructor's page are what the committed notebooks print."""

import re

import pytest
from test_readme import ROOT, printed

PAGE = " ".join((ROOT / "notebooks/reference/teaching.md").read_text().split())
LADDER = r" +[12]\.\S+ +\S+ +\S+ +\S+ +(\S+)"  # gap in bits, of the ladder of 03
DOWN = r" +\S+ +\S+ +\S+ +\S+ +(\S+)$"  # gap in bits, of the table of 02 at 4 bits

# Each row: what the page says, with a number; the notebook; where it prints that number.
CLAIMS = [
    ("Lloyd–Max is 0.457 bit", "03_vector_rd", f"Lloyd–Max tensor{LADDER}"),
    ("an entropy coder 0.035", "03_vector_rd", f"entropy-coded TCQ 256 states{LADDER}"),
    ("one scale 2.10", "02_scalar_rd", f"(?m)^ +uniform tensor{DOWN}"),
    ("best clip 0.89", "02_scalar_rd", f"(?m)^ +uniform opt. clip tensor{DOWN}"),
    ("Lloyd–Max 0.72", "02_scalar_rd", f"(?m)^ +Lloyd–Max tensor{DOWN}"),
    ("at 3 bits 0.58", "06_limits", r"\nLloyd–Max tensor +\S+ +\S+ +(\S+)"),
    ("→ 0.40", "06_limits", r"\nentropy-coded Lloyd–Max tensor +\S+ +\S+ +(\S+)"),
    ("→ 0.26", "06_limits", r"\nECSQ centroid tensor +\S+ +\S+ +(\S+)"),
    ("spends 1.336", "06_limits", r"ECSQ centroid tensor +1 .* (\S+)\n"),
    ("entropy is 0.998", "06_limits", r"ECSQ centroid tensor +1 +\S+ +\S+ +(\S+)"),
    ("intervals lose 1.53 dB", "03_vector_rd", r"\nZ +1 +(\S+)"),
    ("E8 0.88", "03_vector_rd", r"\nE8 +8 +(\S+)"),
    ("256 states 0.21", "03_vector_rd", r"256: (\d\.\d\d)\}"),
    ("H alone 1.01", "07_allocation", r"\nECSQ centroid tensor +\S+ +\S+ +(\S+)"),
    ("and 0.35, measured", "07_allocation", r"\nECSQ \+ feedback +\S+ +\S+ +(\S+)"),
    ("measured 1.02", "07_allocation", r"\nECSQ centroid tensor +\S+ +\S+ +\S+ +(\S+)"),
    ("and 0.34", "07_allocation", r"\nECSQ \+ feedback +\S+ +\S+ +\S+ +(\S+)"),
    ("weight error 0.45", "05_functional", r"\nweight MSE +0\S+ +\S+ +\S+ +\S+ +(\S+)"),
    ("output error 0.95", "05_functional", r"\noutput error +0\S+ +\S+ +\S+ +\S+ +(\S+)"),
]


@pytest.mark.parametrize(("claim", "name", "where"), CLAIMS, ids=lambda value: value)
def test_a_number_is_what_its_notebook_prints(claim, name, where):
    said = re.search(r"\d+\.\d+", claim)[0]
    found = re.search(where, printed(name))
    assert claim in PAGE and f"{float(found[1]):.{len(said.partition('.')[2])}f}" == said


def test_every_number_of_the_plan_is_a_claim():
    plan = PAGE[PAGE.index("| minutes") : PAGE.index("`make slides`")]
    assert sorted(re.findall(r"\d+\.\d+", plan)) == sorted(re.search(r"\d+\.\d+", c)[0] for c, _, _ in CLAIMS)
