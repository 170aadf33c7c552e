"""The explorer as a page: what a browser shows of a state is what the library says of it, to the last digit."""

import ast
import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from bs4 import BeautifulSoup
from chromium import PHONE, chromium
from pages import loads
from playwright.sync_api import expect

import rdlib.quantizers
from rdlib.explorer import page, subject
from rdlib.explorer.controls import CHOICES, clip, group, program, python_of, with_clip, with_group
from rdlib.explorer.page import Choice, family, knobs, render, states
from rdlib.explorer.sources import SOURCES, rows_of_two_variances, scattered_variances, student_t
from rdlib.explorer.subject import GAUSSIAN, UNITS, Subject, with_unit
from rdlib.measure import measure
from rdlib.runs.contract import built

BY_NAME = pytest.mark.parametrize("name", CHOICES)


def small(seed: int, power: float = 1.0) -> np.ndarray:
    """A matrix of few weights and few values."""
    W = np.random.default_rng(seed).standard_normal((16, 64))
    return (np.sign(W) * np.abs(W) ** power).astype(ml_dtypes.bfloat16)


SUBJECTS = [
    Subject("light", small(0), python="student_t(20)"),
    Subject("heavy", small(1, 2.0), python="student_t(3)"),
    Subject("1.q", small(2), np.eye(64) * np.geomspace(1, 9, 64), "open_checkpoint('embedded').tensor('q')"),
]


@pytest.fixture(scope="module")
def html() -> Iterator[str]:
    """A page of two rates, two clips and two sizes of groups."""
    kinds = [("Student-t", "ν"), ("Student-t", "ν"), ("matrix", "matrix")]
    with pytest.MonkeyPatch.context() as few:
        few.setattr(page, "CLIPS", (1.0, 1.5))
        few.setattr(page, "GROUPS", (16, 256))
        for module in (page, subject):
            few.setattr(module, "RATES", range(4, 6))
        yield render([Choice(*kind, s.label, s) for kind, s in zip(kinds, SUBJECTS, strict=True)])


# --- sources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_a_source_has_unit_variance_and_says_how_it_is_made(source, tmp_path):
    for number in {source.numbers[0], source.numbers[-1]}:
        W = source.weights(number)
        assert W.dtype == ml_dtypes.bfloat16 and W.astype(float).std() == pytest.approx(1, rel=1e-2)
        file = tmp_path / "pasted.py"
        file.write_text(program(source.python(number), CHOICES["uniform"]).partition("print")[0])
        assert np.array_equal(runpy.run_path(str(file))["W"], W)


def test_the_tail_is_heavier_the_smaller_nu_is():
    largest = [np.abs(student_t(nu).astype(float)).max() for nu in SOURCES["Student-t"].numbers]
    assert largest == sorted(largest, reverse=True)


def test_two_variances_are_the_same_weights_in_two_arrangements():
    rows, anywhere = rows_of_two_variances(4), scattered_variances(4)
    assert np.array_equal(np.sort(rows, axis=None), np.sort(anywhere, axis=None))
    by_row, mixed = (W.astype(float).std(axis=1).std() for W in (rows, anywhere))
    assert by_row > 5 * mixed


# --- states ----------------------------------------------------------------------------------------------


@BY_NAME
def test_every_state_is_written_as_python_that_makes_it(name):
    for key, quantizer in states(name).items():
        names, written = family(name)["python"][key]
        imported = {n: getattr(rdlib.quantizers, n) for n in names.split(", ")}
        assert built(ast.parse(written, mode="eval").body, imported) == quantizer


@BY_NAME
def test_states_are_those_of_the_knobs(name):
    for key, quantizer in states(name).items():
        bits, knob = key.split()
        assert quantizer.bits == int(bits)
        assert {float(knob)} <= {clip(quantizer), group(quantizer), 0.0 if not knobs(name)[0] else None}


def test_python_of_leaves_out_what_is_at_its_default():
    assert (
        python_of(CHOICES["uniform in groups, best clip"]) == "Uniform(4, PerGroup(size=64), LeastSquares())"
    )
    assert python_of(CHOICES["NF4"]) == "NF4()" and "E8)" in python_of(CHOICES["lattice E8, entropy-coded"])


@BY_NAME
def test_streams_add_up_to_the_rate(name):
    measured = SUBJECTS[0].read(CHOICES[name])
    assert sum(measured.rates.values()) == pytest.approx(measured.point.rate, rel=1e-9)


def test_output_errors_are_read_where_H_is_there():
    matrix, quantizer = SUBJECTS[2], CHOICES["Lloyd–Max"]
    power = np.einsum("ij,jk,ik->", *(matrix.W.astype(float), matrix.H, matrix.W.astype(float))) / 16
    error = measure(matrix.W, quantizer, matrix.H).output_mse
    assert matrix.numbers(quantizer)["output error"] == f"{10 * np.log10(error / power):.2f}"
    assert "output error" not in SUBJECTS[0].numbers(quantizer)


def test_what_loses_nothing_has_no_unit():
    assert with_unit("D/σ²", "none: every weight is exact") == "none: every weight is exact"
    assert with_unit("SQNR", "inf") == "inf dB" and with_unit("levels in use", "16") == "16"


# --- the page --------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_holds_what_the_library_says(html):
    assert loads(html) == []
    data = json.loads(BeautifulSoup(html, "html.parser").find("script", id="data").get_text())
    for one, known in zip(SUBJECTS, data["sources"], strict=True):
        for name in CHOICES:
            assert known["states"][name].keys() == states(name).keys()
            for key, quantizer in states(name).items():
                numbers = known["states"][name][key][0].split("|")
                assert dict(zip(known["names"], numbers, strict=True)) == one.numbers(quantizer)


@pytest.fixture(scope="module")
def tab(html, tmp_path_factory) -> Iterator:
    """A browser at the page, where there is one."""
    file = tmp_path_factory.mktemp("explorer") / "explorer.html"
    file.write_text(html)
    with chromium(*PHONE) as windows:
        tab = windows.new_page()
        faults: list[str] = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(Path(file).as_uri())
        yield tab
    assert faults == []


def shown(tab, column: int = 0) -> dict[str, str]:
    """Names and numbers of the table."""
    rows = tab.locator("#numbers tr").all()
    return {row.locator("th").text_content(): row.locator("td").nth(column).text_content() for row in rows}


def test_sliders_show_what_the_library_says(tab):
    light, heavy, matrix = SUBJECTS
    tab.locator("#value").press("Home")
    assert shown(tab) == light.readout(CHOICES["Lloyd–Max"])
    tab.locator("#bits").press("ArrowRight")
    assert shown(tab) == light.readout(CHOICES["Lloyd–Max"].at(5))
    tab.locator("#value").press("ArrowRight")
    assert shown(tab) == heavy.readout(CHOICES["Lloyd–Max"].at(5))
    assert tab.locator("#knob").is_disabled()

    tab.get_by_role("button", name="Pin").click()
    tab.locator("#family").select_option("uniform, clipped at kσ")
    tab.locator("#knob").press("Home")
    tab.locator("#knob").press("ArrowRight")
    clipped = with_clip(CHOICES["uniform, clipped at kσ"].at(5), 1.5)
    assert shown(tab) == heavy.readout(clipped)
    assert shown(tab, 1) == heavy.readout(CHOICES["Lloyd–Max"].at(5))
    assert tab.locator("#python").text_content() == program("student_t(3)", clipped)
    parts = dict(words.split() for words in tab.locator("#parts li").all_text_contents())
    assert parts == {name: f"{rate:.3f}" for name, rate in heavy.read(clipped).rates.items()}
    assert heavy.numbers(clipped)[f"gap to {GAUSSIAN}"] in tab.locator("#summary").text_content()

    tab.locator("#kind").select_option("matrix")
    tab.locator("#family").select_option("uniform in groups")
    tab.locator("#knob").press("End")
    assert shown(tab) == matrix.readout(with_group(CHOICES["uniform in groups"].at(5), 256))
    assert set(UNITS) == set(shown(tab))


def test_a_state_is_in_the_address(tab):
    tab.locator("#family").select_option("NF4")
    tab.locator("#knob").press("Home")
    state, address = shown(tab), tab.url
    tab.locator("#family").select_option("uniform")
    assert shown(tab) != state
    tab.goto(address)
    expect(tab.locator("#family")).to_have_value("NF4")  # the page hears of its new address later
    assert shown(tab) == state == SUBJECTS[2].readout(with_group(CHOICES["NF4"], 16))


def test_the_page_fits_a_phone_and_every_control_has_a_name(tab):
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    for control in tab.locator("form input, form select").all():
        assert control.evaluate("element => element.labels[0].innerText.trim()")
