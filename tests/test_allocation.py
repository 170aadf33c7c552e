"""Allocation: one option a tensor within the budget, at equal slope or exactly the best; plans that are files."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import one_torch_thread, random_windows, saved, tiny  # noqa: F401
from sources import one_thread  # noqa: F401

from rdlib.allocation.options import mixed, options
from rdlib.allocation.plan import Plan, from_spec, spec_of
from rdlib.allocation.rules import exact, lagrangian, uniform
from rdlib.engine import Variant, second_moments, walk
from rdlib.quantizers import E8, GPTQ, FeedbackTrellis, LatticeCoded, PerGroup, Rotated, Uniform, WaterSIC

METHODS = [exact, lagrangian]


def gaussian_options(sensitivities: list[float], rates: list[float], size: int = 100) -> pd.DataFrame:
    """Tensors of equal size whose cost is α·4^(−R)."""
    rows = [
        (f"t{i}", rate, size * rate, alpha * 4.0**-rate)
        for i, alpha in enumerate(sensitivities)
        for rate in rates
    ]
    return pd.DataFrame(rows, columns=["tensor", "option", "bits", "cost"])


def random_options(seed: int, tensors: int = 4, options: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [(t, o, *rng.uniform(1, 10, 2)) for t in range(tensors) for o in range(options)]
    return pd.DataFrame(rows, columns=["tensor", "option", "bits", "cost"])


def by_force(options: pd.DataFrame, budget: float) -> float:
    """Least cost over all combinations."""
    groups = [list(zip(t.bits, t.cost, strict=True)) for _, t in options.groupby("tensor")]
    return min(sum(c for _, c in pick) for pick in product(*groups) if sum(b for b, _ in pick) <= budget)


@pytest.mark.parametrize("seed", range(12))
def test_exact_is_the_best_of_all_combinations(seed):
    options = random_options(seed)
    least, most = options.groupby("tensor").bits.min().sum(), options.groupby("tensor").bits.max().sum()
    for share in (0.05, 0.3, 0.6, 0.95):
        budget = least + share * (most - least)
        assert exact(options, budget).cost.sum() == pytest.approx(by_force(options, budget), rel=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_equal_slope_keeps_to_the_budget_and_to_the_hull(seed):
    """Weak duality: what equal slope chooses is the best of all choices that cost no more bits than it does."""
    options = random_options(seed, 6, 6)
    least = options.groupby("tensor").bits.min().sum()
    for budget in (least, 1.2 * least, 1.5 * least, 3 * least):
        chosen = lagrangian(options, budget)
        assert chosen.bits.sum() <= budget
        assert sorted(chosen.tensor) == list(range(6))
        best = exact(options, chosen.bits.sum() * (1 + 1e-12)).cost.sum()
        assert chosen.cost.sum() == pytest.approx(best, rel=1e-5)
        assert exact(options, budget).cost.sum() <= chosen.cost.sum() * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_of_several_families_the_best_of_all_is_chosen(seed):
    """By force over all combinations of both; what one family alone can do, both can."""
    families = [random_options(seed + 100 * k, 4, 3) for k in range(2)]
    for k, family in enumerate(families):
        family["option"] = [f"family {k}, {option}" for option in family.option]
    both = pd.concat(families)
    least = both.groupby("tensor").bits.min().sum()
    for budget in (least, 1.3 * least, 1.7 * least):
        best = exact(both, budget).cost.sum()
        assert best == pytest.approx(by_force(both, budget), rel=1e-5)
        equal = lagrangian(both, budget)
        assert equal.cost.sum() == pytest.approx(by_force(both, equal.bits.sum() * (1 + 1e-12)), rel=1e-5)
        for family in families:
            if family.groupby("tensor").bits.min().sum() <= budget:
                assert best <= exact(family, budget).cost.sum() * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_rates_differ_by_half_the_octaves_of_the_sensitivities(method):
    """Water-filling: at equal slope α·4^(−R) is the same for all tensors, R_i − R_j = ½·log₂(α_i / α_j)."""
    options = gaussian_options([1, 4, 16, 64], [k / 16 for k in range(97)])
    chosen = method(options, 400 * 3.0).set_index("tensor")
    assert np.allclose(chosen.option, [1.5, 2.5, 3.5, 4.5], atol=1 / 16)
    assert uniform(options, 400 * 3.0).option.eq(3.0).all()
    assert chosen.cost.sum() < 0.5 * uniform(options, 400 * 3.0).cost.sum()


@pytest.mark.parametrize("method", METHODS)
def test_equal_tensors_share_equally(method):
    options = gaussian_options([2.0] * 5, [1, 2, 3, 4])
    assert method(options, 500 * 3.0).option.eq(3).all()


@pytest.mark.parametrize("method", [*METHODS, uniform])
def test_a_budget_without_end_buys_the_best_of_all(method):
    options = gaussian_options([1, 5], [1, 2, 3])
    assert method(options, 1e9).option.eq(3).all()


@pytest.mark.parametrize("method", [*METHODS, uniform])
def test_a_budget_that_is_too_small_is_refused(method):
    with pytest.raises(ValueError, match="bits"):
        method(gaussian_options([1, 5], [1, 2, 3]), 150)


@pytest.mark.parametrize("method", [*METHODS, uniform])
@pytest.mark.parametrize("seed", range(4))
def test_the_index_and_the_order_of_the_rows_do_not_matter(method, seed):
    """Two tables put one below the other repeat their index."""
    options = random_options(seed)
    options["option"] = options.option.map("ABCDE".__getitem__)
    budget = 1.2 * max(options.groupby("option").bits.sum())
    chosen = {tuple(row) for row in method(options, budget).itertuples(index=False)}
    half = len(options) // 2
    twice = pd.concat([options[:half].reset_index(drop=True), options[half:].reset_index(drop=True)])
    shuffled = options.sample(frac=1, random_state=seed)
    for same in (twice, shuffled, shuffled.set_axis([0] * len(options))):
        assert {tuple(row) for row in method(same, budget).itertuples(index=False)} == chosen
        assert len(chosen) == options.tensor.nunique()


def test_two_tables_one_below_the_other():
    """400 bits and cost 99 instead of 600 and 19, once: rows of the second table were taken for those of the first."""
    one, other = (
        gaussian_options([alpha], [1, 2, 3]).assign(tensor=name) for alpha, name in ((64, "a"), (640, "b"))
    )
    for method in METHODS:
        chosen = method(pd.concat([one, other]), 600)
        assert list(chosen.tensor) == ["a", "b"] and chosen.bits.sum() == 600


@pytest.mark.parametrize("method", [*METHODS, uniform])
def test_a_budget_is_kept_to_the_bit(method):
    """Not to 10⁻⁶ of the sum, the tolerance of solvers of integer programmes: 600 bits of 10⁹."""
    rows = [(t, o, bits, cost) for t in "ab" for o, bits, cost in ((0, 4e8, 2.0), (1, 500_000_300, 1.0))]
    options = pd.DataFrame(rows, columns=["tensor", "option", "bits", "cost"])
    assert method(options, 1e9).bits.sum() <= 1e9
    assert method(options, 1_000_000_600).bits.sum() == 1_000_000_600


@settings(max_examples=40)
@given(st.data())
def test_no_rule_spends_more_than_the_budget(data):
    """Whole numbers of bits, and a budget that some choice exhausts, or misses by a little."""
    bits = data.draw(
        st.lists(st.lists(st.integers(1, 10**9), min_size=2, max_size=4), min_size=1, max_size=4)
    )
    rows = [(t, o, b, 1e9 / b) for t, options in enumerate(bits) for o, b in enumerate(options)]
    options = pd.DataFrame(rows, columns=["tensor", "option", "bits", "cost"])
    some = sum(data.draw(st.sampled_from(option)) for option in bits)
    budget = max(some - data.draw(st.integers(-2, 2)), sum(map(min, bits)))
    for method in METHODS:
        chosen = method(options, budget)
        assert chosen.bits.sum() <= budget and list(chosen.tensor) == list(range(len(bits)))


def test_options_of_two_families_are_a_table_and_a_choice_is_a_variant(tmp_path):
    """Bits are those of the codes, cost is α times the relative output error, and the mix has what was chosen."""
    checkpoint, text = saved(tiny(), tmp_path / "m"), random_windows(20)
    names = [weight.name for weight in checkpoint.weights if weight.layer >= 0]
    tries = [Variant.by(q, names, q) for q in (GPTQ(Uniform(2)), GPTQ(Uniform(4)), WaterSIC(3))]
    alpha = {name: 1.0 + place for place, name in enumerate(names)}
    table = options(checkpoint, text, tries, alpha)
    assert list(zip(table.tensor, table.option, strict=True)) == [(n, v.label) for v in tries for n in names]
    moments = second_moments(checkpoint, text)
    for row in table.iloc[:: len(names) - 1].itertuples():
        W, H = checkpoint.tensor(row.tensor), moments[row.tensor]
        code = row.option.encode(W, H)
        E = W.astype(float) - row.option.decode(code)
        output = np.trace(E @ H @ E.T) / ((W.astype(float) ** 2).sum() * H.diagonal().mean())
        assert row.bits == code.rate * W.size
        assert row.cost == pytest.approx(alpha[row.tensor] * output, rel=1e-4)
    chosen = lagrangian(table, 0.8 * table.groupby("option", sort=False).bits.sum().max())
    assert chosen.option.nunique() > 1
    plan = mixed(chosen, tries, "mixed")
    found = walk(checkpoint, [plan], calibration=text).of(plan)
    assert (found.rate * found.weights).sum() == pytest.approx(chosen.bits.sum())
    assert dict(found.method) == {row.tensor: row.option.method for row in chosen.itertuples()}


# Plans

PLANNED = [
    Uniform(3, PerGroup(size=64)),
    Rotated(GPTQ(Uniform(2)), seed=5),
    WaterSIC(2.25, damping=0.01),
    FeedbackTrellis(3, states=8),
    LatticeCoded(3, E8),
]


@pytest.mark.parametrize("quantizer", PLANNED, ids=lambda q: q.method)
def test_a_quantizer_comes_back_from_json(quantizer):
    assert from_spec(spec_of(quantizer)) == quantizer


def test_a_plan_is_a_file(tmp_path):
    plan = Plan({f"t{i}": quantizer for i, quantizer in enumerate(PLANNED)})
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"t": {"class": "os"}}',
        '{"t": {"class": "WaterSIC", "bits": 99}}',
        '{"t": {"class": "E8P", "x": 1}}',
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match="plan.json cannot be read as a plan"):
        Plan.load(tmp_path / "plan.json")


def test_a_hyper_parameter_that_is_not_public_is_refused():
    with pytest.raises(ValueError, match="cannot be written into a plan"):
        spec_of(object())


def test_a_plan_is_a_variant_of_the_model(tmp_path):
    checkpoint = saved(tiny(), tmp_path / "m")
    moments = second_moments(checkpoint, random_windows(20))
    names = [weight.name for weight in checkpoint.layer(1)]
    plan = Plan(dict.fromkeys(names, GPTQ(Uniform(3))))
    found = walk(checkpoint, [plan.variant()], calibration=random_windows(20), keep=["plan"])
    assert found.tensors["plan"].keys() == set(names)
    for name in names:
        code = plan.quantizers[name].encode(checkpoint.tensor(name), moments[name])
        assert np.array_equal(found.tensors["plan"][name], plan.quantizers[name].decode(code))
        assert found.of(plan.variant()).rate[name] == code.rate


def test_a_tensor_that_is_not_there_is_named(tmp_path):
    checkpoint = saved(tiny(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"plan changes nothing.weight, which m does not have"):
        walk(checkpoint, [Plan({"nothing.weight": Uniform(3)}).variant()])
