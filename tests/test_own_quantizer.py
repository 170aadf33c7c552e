"""A quantizer of one's own: the contract finds what is wrong with a class named on the command line."""

import re
from pathlib import Path

import pytest

from rdlib.__main__ import main
from rdlib.quantizers import GPTQ, LloydMax, UniformAsymmetric
from rdlib.runs.contract import CLAUSES, checks, ladder, load

PAGE = (Path(__file__).parents[1] / "notebooks/reference/quantizers.md").read_text()
TERNARY = re.search(r"```python\n(from dataclasses.*?)\n\nW = ", PAGE, re.S)[1]

BROKEN = {
    "decodes without": ('"scale": scale}', '"scale": scale, "note": scale}'),
    "another file": ("1.5 * mean", "(1.5 + np.random.default_rng().random()) * mean"),
}


def made(folder: Path, text: str) -> str:
    file = folder / "ternary.py"
    file.write_text(text)
    return f"{file}:Ternary"


def test_the_one_of_the_reference_keeps_its_contract_and_has_a_place(tmp_path, capsys):
    main(["contract", made(tmp_path, TERNARY)])
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[: len(CLAUSES)]] == ["✓"] * len(CLAUSES)
    (row,) = [line for line in lines if "←" in line]
    assert "ternary channel" in row and any("Lloyd–Max tensor" in line for line in lines)


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_named(tmp_path, fault):
    old, new = BROKEN[fault]
    assert old in TERNARY
    found = [text for _, text in checks(load(made(tmp_path, TERNARY.replace(old, new)))) if text]
    assert any(fault in text for text in found), found


@pytest.mark.parametrize("quantizer", [LloydMax(3), GPTQ(UniformAsymmetric(4))], ids=lambda q: q.method)
def test_ours_keep_it(quantizer):
    assert [fault for _, fault in checks(quantizer) if fault] == []


def test_an_expression_is_taken_as_well_as_a_class():
    assert load("rdlib.quantizers:LloydMax(3)") == LloydMax(3)


def test_the_ladder_is_in_order():
    gaps = ladder(LloydMax(2), 1 << 14).gap_bits
    assert list(gaps) == sorted(gaps)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ternary.py", "Name a class behind a colon"),
        ("nowhere.py:A", "There is no file nowhere.py"),
        ("no_such_room:A", "There is no module no_such_room"),
        ("rdlib.quantizers:Nothing", "cannot be made: name 'Nothing' is not defined"),
        ("rdlib.quantizers:LloydMax", "cannot be made: .*bits"),
        ("rdlib.quantizers:PerTensor", "is no Quantizer"),
    ],
)
def test_what_is_no_quantizer_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)
