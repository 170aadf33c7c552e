"""The explorer: its numbers are those of the library, and its pictures follow from its state alone."""

import asyncio
import html
import io
from functools import cache

import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np
import pytest
from matplotlib.image import imread
from nbformat.v4 import new_code_cell, new_notebook, new_output

from rdlib.explorer import CHOICES, Explorer, Picture, Subject, picture, with_clip, with_group
from rdlib.explorer.controls import clip, group, program
from rdlib.explorer.subject import EXACT, GAUSSIAN, SHANNON
from rdlib.explorer.widget import SOON, table_of
from rdlib.measure import measure
from rdlib.models.checkpoint import open_checkpoint
from rdlib.quantizers.scalar.level_table import has_level_table
from rdlib.runs.notebook import WIDGET, tidy

BY_NAME = pytest.mark.parametrize("name", CHOICES)
SCALAR = [name for name, quantizer in CHOICES.items() if has_level_table(quantizer)]


def sources() -> dict[str, np.ndarray]:
    """Matrices of every type, of few and many values, with a mean, with an outlier."""
    rng = np.random.default_rng(0)
    outlier = rng.standard_normal((40, 96)) * 0.02
    outlier[3, 5] = 4.0
    return {
        "Gaussian": rng.standard_normal((40, 96)).astype(ml_dtypes.bfloat16),
        "tails": (rng.standard_t(4, (50, 70)) * 0.02).astype(ml_dtypes.bfloat16),
        "outlier": outlier.astype(np.float16),
        "off centre": (rng.standard_normal((48, 80)) * 0.1 + 1).astype(ml_dtypes.bfloat16),
        "signs": np.where(rng.random((32, 64)) < 0.3, -1, 1).astype(np.float16),
        "ternary": rng.choice([-0.5, 0.0, 0.5], (32, 64)).astype(np.float32),
        "float32": rng.laplace(size=(30, 40)).astype(np.float32),
    }


SOURCES = sources()


@cache
def subject_of(source: str) -> Subject:
    return Subject(source, SOURCES[source])


@pytest.fixture(scope="module")
def subject() -> Subject:
    return subject_of("Gaussian")


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(open_checkpoint("embedded"), "0.k")


# --- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@BY_NAME
def test_readings_are_what_the_library_measures(source, name):
    """At every rate, for every family: a reading from the histogram is the measurement on the matrix."""
    subject = subject_of(source)
    for bits in set(CHOICES[name].bits_allowed) & set(range(1, 9)):
        quantizer = CHOICES[name].at(bits)
        seen, true = subject.read(quantizer).point, measure(subject.W, quantizer)
        assert (seen.method, seen.bits, seen.symbols) == (true.method, true.bits, true.symbols)
        for number in ("mse", "nmse", "side_rate", "max_error", "rel_max_error", "index_entropy"):
            assert getattr(seen, number) == pytest.approx(getattr(true, number), rel=1e-9, abs=1e-15), number
        assert seen.sqnr_db == pytest.approx(true.sqnr_db, rel=1e-9)
        slack = 64 / subject.W.size if name.startswith("entropy-coded") else 1e-12  # two words of the coder
        assert seen.rate == pytest.approx(true.rate, abs=slack)


@pytest.mark.parametrize("source", SOURCES)
def test_no_scalar_quantizer_of_the_tensor_beats_the_bound_of_its_histogram(source):
    subject = subject_of(source)
    for name in SCALAR:
        curve = subject.curve(CHOICES[name])
        assert (curve.rate >= subject.limit.rate_lower(curve.mse) - 1e-9).all(), name


def test_bounds_and_gaps_agree(subject):
    """A gap is a shift of the bound: at the rate less the gap, the bound has the distortion of the point."""
    point = subject.read(CHOICES["Lloyd–Max"]).point
    gaps = subject.gaps(point)
    assert set(gaps) == set(subject.bounds) == {GAUSSIAN, EXACT, SHANNON}
    for name, bound in subject.bounds.items():
        assert bound(point.rate - gaps[name]) == pytest.approx(point.nmse, rel=1e-6), name


def test_a_lossless_point_has_no_finite_gap_to_a_density():
    subject = subject_of("ternary")
    quantizer = CHOICES["Lloyd–Max"]
    assert subject.read(quantizer).point.nmse == 0
    assert np.isnan(subject.gaps(subject.read(quantizer).point)[GAUSSIAN])
    assert subject.readout(quantizer)["D/σ²"] == "none: every weight is exact"


@BY_NAME
def test_levels_hold_all_that_is_decoded(subject, name):
    quantizer = CHOICES[name]
    levels = subject.read(quantizer).levels
    assert (np.diff(levels) > 0).all()
    if has_level_table(quantizer):
        decoded = quantizer.decode(quantizer.encode(subject.W))
        assert set(np.unique(decoded)) <= set(levels)
    else:
        assert len(levels) <= 2**quantizer.bits
    if "entropy-coded" not in name:
        assert len(levels) == 16


def test_the_readout_has_a_unit_for_every_number_and_the_gaps(subject):
    numbers = subject.readout(CHOICES["Lloyd–Max"])
    point = subject.read(CHOICES["Lloyd–Max"]).point
    assert numbers["total rate"] == f"{point.rate:.3f} bits per weight"
    assert numbers[f"gap to {GAUSSIAN}"] == f"{subject.gaps(point)[GAUSSIAN]:.3f} bits"


def test_a_reading_is_taken_once(subject):
    quantizer = CHOICES["uniform in groups"]
    assert subject.read(quantizer) is subject.read(CHOICES["uniform in groups"].at(4))


def test_a_quantizer_of_groups_has_no_code_of_values(subject):
    with pytest.raises(ValueError, match="uniform g64 depends on where each weight is"):
        CHOICES["uniform in groups"].encode_values(subject.histogram)
    assert SCALAR == list(CHOICES)[:7]


def test_equal_weights_are_refused():
    with pytest.raises(ValueError, match="All weights of flat are equal"):
        Subject("flat", np.ones((4, 4), np.float32))


def test_the_matrix_is_not_changed():
    W = SOURCES["tails"].copy()
    subject = Subject("tails", W)
    for quantizer in CHOICES.values():
        subject.curve(quantizer)
    assert (W == SOURCES["tails"]).all()


# --- controls --------------------------------------------------------------------------------------------


@BY_NAME
def test_controls_change_only_what_a_quantizer_has(name):
    quantizer = CHOICES[name]
    narrow, small = with_clip(quantizer, 2.5), with_group(quantizer, 16)
    assert clip(narrow) == (None if clip(quantizer) is None else 2.5)
    assert group(small) == (None if group(quantizer) is None else 16)
    assert (narrow == quantizer) == (clip(quantizer) is None)
    assert (small == quantizer) == (group(quantizer) is None)
    assert narrow.bits == small.bits == quantizer.bits


# --- pictures --------------------------------------------------------------------------------------------


def test_a_picture_follows_from_the_state_alone(subject):
    """Whatever was shown before: no trace of an earlier quantizer stays, and states differ."""
    one, other = Picture(subject), Picture(subject)
    fresh = {name: one.png(quantizer) for name, quantizer in CHOICES.items()}
    again = {name: other.png(CHOICES[name]) for name in reversed(CHOICES)}
    assert fresh == again
    assert len(set(fresh.values())) == len(CHOICES)
    assert imread(io.BytesIO(fresh["NF4"])).shape[:2] == (480, 1040)


def test_a_lossless_state_is_drawn():
    subject = subject_of("ternary")
    assert Picture(subject).png(CHOICES["Lloyd–Max"]).startswith(b"\x89PNG")


def test_the_static_picture_says_the_same(subject):
    figure = picture(subject, CHOICES["Lloyd–Max"])
    top, low, right = (
        {ax.get_label(): ax for ax in figure.axes}[n] for n in ("distortion", "gap", "density")
    )
    point = subject.read(CHOICES["Lloyd–Max"]).point
    assert top.get_title(loc="left").startswith("Gaussian, Lloyd–Max tensor: 4.")
    (rate,), (db,) = top.lines[-2].get_data()
    assert (rate, db) == pytest.approx((point.rate, 10 * np.log10(point.nmse)))
    assert "16 levels" in right.get_title(loc="left")
    assert "total bits per weight" in low.get_xlabel()
    plt.close(figure)


# --- the widget ------------------------------------------------------------------------------------------


def test_numbers_and_figure_follow_every_control(explorer):
    before = explorer.image.value
    for control, value in [
        ("bits", 5),
        ("family", "uniform, clipped at kσ"),
        ("clip", 2.5),
        ("matrix", "0.v"),
    ]:
        getattr(explorer, control).value = value
        assert explorer.image.value != before, control
        before = explorer.image.value
        assert explorer.numbers.value == table_of({"now": explorer.subject.readout(explorer.quantizer)})
    assert explorer.subject.label == "0.v"
    assert explorer.quantizer == with_clip(CHOICES["uniform, clipped at kσ"].at(5), 2.5)
    explorer.family.value = "uniform in groups"
    explorer.group.value = 32
    assert explorer.quantizer == with_group(CHOICES["uniform in groups"].at(5), 32)


def test_a_pinned_state_stays_while_others_come(explorer):
    explorer.family.value, explorer.bits.value = "Lloyd–Max", 3
    pinned, before = explorer.subject.readout(explorer.quantizer), explorer.image.value
    explorer.pin.value = True
    explorer.family.value, explorer.source.value = "uniform", "Laplacian"
    columns = {"now": explorer.subject.readout(explorer.quantizer), "pinned": pinned}
    assert explorer.numbers.value == table_of(columns)
    explorer.family.value, explorer.source.value = "Lloyd–Max", "matrices of the model"
    explorer.pin.value = False
    assert explorer.numbers.value == table_of({"now": pinned}) and explorer.image.value == before


def test_a_source_has_a_slider_for_its_tail(explorer):
    explorer.source.value = "Student-t"
    explorer.tail.value = 5
    assert explorer.subject.label == "Student-t, ν = 5" and explorer.matrix.disabled
    assert program("student_t(5)", explorer.quantizer) in html.unescape(explorer.python.value)
    explorer.source.value = "Laplacian"
    assert explorer.subject.label == "Laplacian" and explorer.tail.disabled
    explorer.source.value = "matrices of the model"
    assert explorer.subject.label == explorer.matrix.value and not explorer.matrix.disabled


def test_a_large_matrix_answers_from_a_sample_and_then_exactly(explorer, monkeypatch):
    """Groups are measured on all rows a moment later; a trellis is not, and the screen says so."""
    large = Subject("large", np.random.default_rng(0).standard_normal((4096, 80)).astype(np.float16))
    later: list = []
    monkeypatch.setattr(explorer, "_after", lambda seconds, act: later.append(act))
    monkeypatch.setattr(explorer, "subject", large)
    monkeypatch.setattr(explorer, "_picture", Picture(large))
    for name in ("trellis of 64 states, entropy-coded", "uniform in groups"):
        explorer.family.value = name
        explorer._update()
        assert "from 819 of 4,096 rows" in explorer.busy.value
        assert large.glance(explorer.quantizer) is large.sample.read(explorer.quantizer)
        assert (explorer._settle in later) == ("groups" in name)
    explorer._settle()
    assert explorer.busy.value == ""
    seen, true = large.glance(explorer.quantizer).point, measure(large.W, explorer.quantizer)
    assert (seen.rate, seen.mse) == (true.rate, true.mse)


def test_of_changes_in_a_hurry_the_last_is_shown(explorer, monkeypatch):
    """Where a loop runs, as in a kernel."""
    shown: list = []
    monkeypatch.setattr(explorer, "_update", lambda: shown.append(explorer.bits.value))

    async def hurry() -> None:
        for bits in (2, 5, 7, 4, 6):
            explorer.bits.value = bits
        while not shown:
            await asyncio.sleep(SOON)

    asyncio.run(hurry())
    assert shown == [6]


def test_controls_that_a_family_lacks_are_off(explorer):
    off = {}
    for name in CHOICES:
        explorer.family.value = name
        off[name] = [control for control in ("bits", "group", "clip") if getattr(explorer, control).disabled]
    assert off["uniform"] == ["group", "clip"]
    assert off["uniform, clipped at kσ"] == ["group"]
    assert off["uniform in groups"] == ["clip"]
    assert off["NF4"] == ["bits", "clip"]


def test_what_is_shown_without_a_kernel_is_the_same_every_time(explorer):
    """Only the text of the widget is kept: its view is of a random id."""
    explorer.family.value, explorer.matrix.value, explorer.bits.value = "NF4", "0.k", 7
    explorer.group.value = 32
    assert repr(explorer) == "Explorer(0.k, NF4 g32, 4 bits)"
    view = {"text/plain": repr(explorer), WIDGET: {"model_id": "0123"}}
    shown = new_output("display_data", data=view)
    notebook = tidy(new_notebook(cells=[new_code_cell("display(explorer)", outputs=[shown])]))
    assert notebook.cells[0].outputs[0].data == {"text/plain": repr(explorer)}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [(("9.down",), "There is no matrix '9.down'; there are embed, "), (("0.k", "VQ"), "no family 'VQ'")],
)
def test_what_there_is_not_is_refused(arguments, fault):
    with pytest.raises(ValueError, match=fault):
        Explorer(open_checkpoint("embedded"), *arguments)


def test_the_explorer_prints_nothing(explorer, capfd):
    explorer.family.value, explorer.bits.value = "Lloyd–Max", 3
    assert capfd.readouterr() == ("", "")
