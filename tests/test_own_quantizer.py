"""A quantizer of one's own: the contract finds what is wrong with a class named on the command line."""

import re
from pathlib import Path

import pytest

from rdlib.__main__ import main
from rdlib.quantizers import GPTQ, EcsqCentroid, LloydMax, UniformAsymmetric
from rdlib.runs.contract import CLAUSES, checks, ladder, load, outputs

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
    rows = [line for line in lines if "←" in line]
    assert len(rows) == 2 and all("ternary channel" in row for row in rows)
    assert any("Lloyd–Max tensor" in line for line in lines) and any("WaterSIC" in line for line in lines)


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
    assert load("rdlib.quantizers:GPTQ(UniformAsymmetric(4), damping=.1)") == GPTQ(UniformAsymmetric(4), 0.1)


def test_the_ladder_is_in_order():
    gaps = ladder(LloydMax(2), 1 << 14).gap_bits
    assert list(gaps) == sorted(gaps)


def test_a_known_code_scores_as_it_does_among_the_known():
    name, scores = outputs(EcsqCentroid(3))
    assert name == "model.layers.1.self_attn.q_proj.weight of embedded" and (scores.output_gap > 0).all()
    assert list(scores.output_gap) == sorted(scores.output_gap) and list(scores.yours).count("←") == 1
    twice = scores[scores.method == EcsqCentroid(3).method].drop(columns="yours")
    assert len(twice) == 2 and twice.iloc[0].equals(twice.iloc[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ternary.py", "Name a class behind a colon"),
        ("nowhere.py:A", "There is no file nowhere.py"),
        ("no_such_room:A", "There is no module no_such_room"),
        ("rdlib.quantizers:Nothing", "cannot be made: name 'Nothing' is not defined"),
        ("rdlib.quantizers:LloydMax", r"cannot be made: .*bits.*Give its arguments, as in \"LloydMax\(2\)\""),
        ("rdlib.quantizers:LloydMax(2", "cannot be made: "),
        ("rdlib.quantizers:[LloydMax(2) for _ in [1]][0]", "cannot be made: "),
        ("rdlib.quantizers:PerTensor", "is no Quantizer"),
    ],
)
def test_what_is_no_quantizer_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)
