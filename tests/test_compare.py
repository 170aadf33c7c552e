"""Two experiments side by side: what matches, what differs, and what is noise."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from pages import HOSTILE, build, loads

from rdlib.__main__ import main
from rdlib.runs import compare
from rdlib.runs.compare import DIFFERS, NOISE, SAME


def points(**columns: object) -> pd.DataFrame:
    """Two methods at two rates on two tensors."""
    rows = [(g, m, b) for g in ("q", "down") for m in ("uniform", "Lloyd–Max") for b in (2, 3)]
    table = pd.DataFrame(rows, columns=["group", "method", "bits"]).assign(notebook="01_one", layer=1)
    nmse = 4.0**-table.bits * (1 + 0.1 * np.arange(8))
    return table.assign(rate=table.bits + 0.01, nmse=nmse, kl=0.1, kl_error=0.01).assign(**columns)


@pytest.fixture
def pair(tmp_path):
    """Compares two tables as experiments of one model, or of two."""

    def make(a: pd.DataFrame, b: pd.DataFrame, other: str = "embedded") -> compare.Comparison:
        folders = build(tmp_path / "a", a), build(tmp_path / "b", b, model=other)
        return compare.compare(*map(compare.load, folders))

    return make


def verdicts(comparison: compare.Comparison, quantity: str) -> list[str]:
    return list(comparison.values[comparison.values.quantity == quantity].verdict)


def test_an_experiment_differs_nowhere_from_itself(pair):
    found = pair(points(), points())
    assert not found.means and set(found.values.verdict) == {SAME}
    assert len(found.values) == 8 * 3 and found.only.empty and list(found.origins.item) == ["experiment"]
    assert (found.values.difference == 0).all()


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1 + 0.9e-6, SAME), (1 - 0.9e-6, SAME), (1 + 1.1e-6, DIFFERS)]
)
def test_rounding_is_no_difference(pair, factor, verdict):
    other = points()
    other.loc[3, "nmse"] *= factor
    found = pair(points(), other)
    assert verdicts(found, "nmse") == [SAME] * 3 + [verdict] + [SAME] * 4
    changed = found.values[(found.values.quantity == "nmse")].iloc[3]
    assert changed.row == "q · Lloyd–Max · bits 3 · layer 1"


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, SAME), (0.028, NOISE), (-0.028, NOISE), (0.029, DIFFERS)]
)
def test_standard_errors_are_noise(pair, shift, verdict):
    """Two standard errors of a difference of independent values, 2·√2·0.01 = 0.0283."""
    assert set(verdicts(pair(points(), points(kl=0.1 + shift)), "kl")) == {verdict}


def test_differences_by_chance_are_counted(pair):
    """Of equal quantities 4.6 % differ by more than two standard errors: the table says how many that is."""
    rng, many = np.random.default_rng(1), pd.concat([points()] * 50, ignore_index=True)
    drawn = [many.assign(kl=0.1 + 0.01 * rng.standard_normal(len(many))) for _ in "ab"]
    (row,) = pair(*drawn).summary.to_dict("records")
    assert row["by chance"] == pytest.approx(0.0455 * len(many), abs=0.05)  # rate and nmse are computed
    assert row["differs"] == pytest.approx(row["by chance"], abs=4 * row["by chance"] ** 0.5)


def test_nothing_to_compare(pair):
    nothing = pair(points().iloc[:0], points().iloc[:0])
    assert nothing.summary.empty and "Neither has a point." in compare.lines(nothing)


def test_one_side_without_points(pair):
    one = pair(points(), points().iloc[:0])
    assert list(one.summary["only in A"]) == [8] and one.summary["by chance"].item() == 0


def test_verdicts_do_not_depend_on_the_order(tmp_path):
    rng = np.random.default_rng(0)
    tables = [points(kl=0.1 + 0.03 * rng.standard_normal(8), nmse=rng.choice([0.1, 0.2], 8)) for _ in "ab"]
    a, b = (compare.load(build(tmp_path / n, t)) for n, t in zip("ab", tables, strict=True))
    there, back = compare.compare(a, b), compare.compare(b, a)
    assert list(there.values.verdict) == list(back.values.verdict)
    np.testing.assert_array_equal(there.values.difference, -back.values.difference)
    assert {SAME, NOISE, DIFFERS} <= set(there.values.verdict)


def test_missing_and_infinite_numbers(pair):
    a = points(gap=[np.nan, np.nan, 1.0, np.inf, np.inf, -np.inf, 0.0, 1.0])
    b = points(gap=[np.nan, 1.0, np.nan, np.inf, 1.0, np.inf, 0.0, 1.0])
    expected = [DIFFERS, DIFFERS, SAME, DIFFERS, DIFFERS, SAME, SAME]  # the first is no number in either
    assert verdicts(pair(a, b), "gap") == expected


def test_rows_of_one_side(pair):
    extra = points().iloc[:1].assign(notebook="02_two")
    found = pair(points(), pd.concat([points().drop(index=[0, 1]), extra], ignore_index=True))
    assert list(zip(found.only.side, found.only.notebook, strict=True)) == [("a", "01_one")] * 2 + [
        ("b", "02_two")
    ]
    assert list(found.summary["rows in both"]) == [6, 0]
    assert list(found.summary["only in A"]) == [2, 0] and list(found.summary["only in B"]) == [0, 1]


def test_rows_of_the_same_name_keep_their_order(pair):
    twice = pd.concat([points(), points(rate=9.0)], ignore_index=True)
    found = pair(twice, twice)
    assert set(found.values.verdict) == {SAME} and len(found.values) == 16 * 3


def test_a_column_that_only_one_has_does_not_hide_the_rest(pair):
    found = pair(points(), points(source="Gaussian", extra=1.0))
    assert found.only.empty and set(found.values.quantity) == {"rate", "nmse", "kl"}


def test_two_models_are_compared_by_their_means(pair):
    a, b = points(), points(nmse=points().nmse * 4, kl_error=np.nan)
    found = pair(a, b, "another")
    assert found.means and found.only.empty
    assert set(found.values.row) == {f"{m} · bits {k}" for m in ("uniform", "Lloyd–Max") for k in (2, 3)}
    assert set(found.values.quantity) == {"rate", "nmse_db", "kl"}  # an average of raw errors says nothing
    decibel = found.values[found.values.quantity == "nmse_db"]
    np.testing.assert_allclose(decibel.difference, 10 * np.log10(4))
    first = 10 * np.log10(a[(a.method == "uniform") & (a.bits == 2)].nmse)
    np.testing.assert_allclose(decibel.a.iloc[0], first.mean())
    np.testing.assert_allclose(decibel.noise.iloc[0], 2 * np.sqrt(2) * first.std() / np.sqrt(2))


def test_one_tensor_has_the_error_of_its_estimate(pair):
    one = points().query("group == 'q'")
    found = pair(one, one.assign(kl=0.12), "another")
    assert set(verdicts(found, "kl")) == {NOISE} and set(verdicts(found, "rate")) == {SAME}


def test_origins(pair):
    found = pair(points(), points(), "another")
    assert found.origins.to_dict("records") == [
        {"item": "experiment", "a": "a", "b": "b"},
        {"item": "notebooks.01_one.parameters.model", "a": "embedded", "b": "another"},
    ]


def test_page_is_self_contained_and_trusts_no_name(tmp_path):
    hostile = points(method=[HOSTILE, "uniform"] * 4)
    folders = [build(tmp_path / "a", hostile), build(tmp_path / "b", hostile.assign(rate=5.0), model=HOSTILE)]
    found = compare.compare(*map(compare.load, folders))
    html = compare.html(found)
    soup = BeautifulSoup(html, features="html.parser")
    assert loads(html) == [] and compare.html(found) == html
    assert [script.get("type") for script in soup("script")] == ["application/json", None]
    assert not [tag for tag in soup.find_all(True) if any(name.startswith("on") for name in tag.attrs)]
    held = json.loads(soup.find("script", type="application/json").get_text())
    assert any(HOSTILE in row[1] for row in held["rows"])
    assert len(soup("img")) == 2 and all(image["alt"][:2] in ("A:", "B:") for image in soup("img"))
    assert str(tmp_path) not in html


def test_no_such_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished experiment 'demos'"):
        compare.load("demos")


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build(Path("build/a"), points())
    build(Path("elsewhere/b"), points(rate=7.0))
    main(["compare", "a", "elsewhere/b"])
    told = capsys.readouterr().out
    assert (
        "rows of the same tensor" in told
        and "8 numbers differ; 0.4 would by chance" in told
        and "rate: 2.01 and 7" in told
    )
    assert Path("build/compare-a-b.html").is_file()
    with pytest.raises(SystemExit, match="no finished experiment 'c'"):
        main(["compare", "a", "c"])
