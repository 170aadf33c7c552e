"""What a cell returns is worth looking at: HTML and a plain twin say the same numbers."""

import re

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from rdlib.allocation.plan import uniform_plan
from rdlib.functional.divergence import Distribution, functional
from rdlib.measure import curve, measure
from rdlib.models import open_checkpoint
from rdlib.network.windows import Windows
from rdlib.quantizers import EcsqCentroid, LloydMax, PerGroup, Uniform

W = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)


def divergence():
    """Of two small heads."""
    generator = torch.Generator().manual_seed(0)
    P, Q = torch.randn(2, 8, 11, generator=generator)
    ids = np.arange(10).reshape(2, 5)
    target = torch.from_numpy(ids[:, 1:].reshape(-1, 1))
    return functional(Windows(ids, 4), [Distribution(P).compared(Q, target)])


SHOWN = {
    "Checkpoint": open_checkpoint("embedded"),
    "Code": EcsqCentroid(4).encode(W),
    "Curve": curve(W, Uniform(4, PerGroup(size=32)), range(2, 5)),
    "Plan": uniform_plan(LloydMax(3), open_checkpoint("embedded")),
    "Functional": divergence(),
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_html_has_every_number_of_its_plain_twin(shown):
    text = BeautifulSoup(shown._repr_html_(), "html.parser").get_text(" ")
    numbers = re.findall(r"\d+\.\d+", repr(shown))
    assert numbers or "bits" in repr(shown)
    assert [n for n in numbers if n not in text] == []
    assert len(repr(shown)) < 8000 and "array(" not in repr(shown)


def test_a_code_shows_the_bits_of_its_streams():
    code = SHOWN["Code"]
    assert repr(code).startswith(f"Code of 8 × 64 weights, {code.rate:.3f} bits each: index ")
    assert all(f"{name} {rate:.3f}" in repr(code) for name, rate in code.rates.items())
    widths = [float(w) for w in re.findall(r"flex-grow:(\d+\.\d+)", code._repr_html_())]
    assert sum(widths) == pytest.approx(code.rate, abs=1e-3) and widths == sorted(widths, reverse=True)


def test_a_point_is_a_table():
    point = measure(W, LloydMax(2))
    cells = BeautifulSoup(point._repr_html_(), "html.parser")("td")
    assert f"{point.sqnr_db:.4g}" in [cell.get_text() for cell in cells]


def test_a_curve_is_still_a_list_of_points():
    each = [measure(W, Uniform(b, PerGroup(size=32))).mse for b in (2, 3, 4)]
    assert isinstance(SHOWN["Curve"], list) and [point.mse for point in SHOWN["Curve"]] == each


def test_a_plan_names_every_matrix():
    assert all(name in repr(SHOWN["Plan"]) for name in SHOWN["Plan"].quantizers)
