"""Where the bits should go: one of several options for every tensor, within a budget for the model.

Options are a table with the columns ``tensor``, ``option`` (a label, the same for the same method and rate), ``bits``
(the total price of the tensor) and ``cost`` (the damage, which adds up over tensors, such as a predicted KL).
"""

from itertools import count

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

HALVINGS = 100  # of the interval of slopes
TOLERANCE = 2e-6  # of the room for extra bits: twice what the solver may use too much


def uniform(options: pd.DataFrame, budget: float) -> pd.DataFrame:
    """The one option of least cost that all tensors can have within the budget.

    Args:
        options: columns ``tensor``, ``option``, ``bits`` and ``cost``; any index.
        budget: bits for all tensors together.

    Returns:
        The chosen rows, one a tensor, in the order of the table.

    Raises:
        ValueError: no option is there for all tensors and within the budget.
    """
    tensors = options.tensor.nunique()
    totals = options.groupby("option", sort=False).agg(
        bits=("bits", "sum"), cost=("cost", "sum"), tensors=("tensor", "nunique")
    )
    allowed = totals[(totals.bits <= budget) & (totals.tensors == tensors)]
    if allowed.empty:
        raise ValueError(f"No option fits all {tensors} tensors into {budget:.0f} bits.")
    return options[options.option == allowed.cost.idxmin()]


def lagrangian(options: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Every tensor's option of least cost + λ·bits, with the least λ ≥ 0 that keeps to the budget.

    All tensors then have the same slope −∂cost/∂bits = λ: no bit would do more good elsewhere.  Only options on the
    lower convex hull of a tensor can be chosen, so that a little of the budget may be left over.

    Args:
        options: columns ``tensor``, ``option``, ``bits`` and ``cost``; any index.
        budget: bits for all tensors together.

    Returns:
        The chosen rows, one a tensor, in the order of the table.

    Raises:
        ValueError: not even the cheapest options fit.

    References:
        Everett 1963, doi:10.1287/opre.11.3.399; Shoham and Gersho 1988, doi:10.1109/29.90373.
    """
    low = 0.0  # fits, or is too much
    if _at_slope(options, low).bits.sum() <= budget:
        return _at_slope(options, low)
    _refuse_small(options, budget)
    high = 1e-12 + 2 * _steepest(options)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _at_slope(options, middle).bits.sum() <= budget else (middle, high)
    return _at_slope(options, high)


def exact(options: pd.DataFrame, budget: float) -> pd.DataFrame:
    """The options of least Σ cost with Σ bits ≤ budget, one a tensor: a multiple-choice knapsack.

    As an integer programme, by the solver HiGHS.  Σ cost is least within 10⁻⁶, relative.  The solver allows a sum
    of bits that is too large by 10⁻⁶ of what is to spend above the cheapest options; where it uses that, it has to
    do with so much less.

    Args:
        options: columns ``tensor``, ``option``, ``bits`` and ``cost``; any index.
        budget: bits for all tensors together.

    Returns:
        The chosen rows, one a tensor, in the order of the table.

    Raises:
        ValueError: not even the cheapest options fit, or the solver gives up.

    References:
        Sinha and Zoltners 1979, doi:10.1287/opre.27.3.503; Huangfu and Hall 2018, doi:10.1007/s12532-017-0130-5.
    """
    _refuse_small(options, budget)
    least = options.groupby("tensor").bits.transform("min")
    extra, room = (options.bits - least).to_numpy(float), budget - options.groupby("tensor").bits.min().sum()
    for tries in count():
        chosen = _knapsack(options, extra, room * (1 - tries * TOLERANCE))
        if chosen.bits.sum() <= budget:
            return chosen


def _knapsack(options: pd.DataFrame, extra: np.ndarray, room: float) -> pd.DataFrame:
    """The options of least Σ cost with Σ extra ≤ room, one a tensor, as far as the solver's tolerances go."""
    tensor = pd.factorize(options.tensor)[0]
    ones = csr_array((np.ones(len(options)), (tensor, np.arange(len(options)))))
    cost = options.cost.to_numpy(float)
    solved = milp(
        cost / (np.abs(cost).max() or 1),
        integrality=np.ones(len(options)),
        bounds=Bounds(0, np.where(extra <= room, 1, 0)),
        constraints=[
            LinearConstraint(ones, 1, 1),
            LinearConstraint(extra[None] / (room or 1), -np.inf, room > 0),
        ],
        options={"mip_rel_gap": 1e-6},
    )
    if solved.x is None:
        raise ValueError(f"The allocation could not be solved: {solved.message}")
    return options[solved.x > 0.5]


def _at_slope(options: pd.DataFrame, slope: float) -> pd.DataFrame:
    """Every tensor's option of least cost + slope·bits; of two that tie, the one of fewer bits."""
    order = np.lexsort((options.bits, options.cost + slope * options.bits))
    first = ~options.tensor.iloc[order].duplicated().to_numpy()
    return options.iloc[np.sort(order[first])]


def _steepest(options: pd.DataFrame) -> float:
    """A slope at which every tensor takes its option of fewest bits."""
    steepest = 0.0
    for _, tensor in options.groupby("tensor", sort=False):
        least = tensor.iloc[tensor.bits.argmin()]
        more = tensor[tensor.bits > least.bits]
        if len(more):
            steepest = max(steepest, ((least.cost - more.cost) / (more.bits - least.bits)).max())
    return steepest


def _refuse_small(options: pd.DataFrame, budget: float) -> None:
    """Raise where the cheapest options of all tensors do not fit into the budget."""
    least = options.groupby("tensor").bits.min().sum()
    if least > budget:
        raise ValueError(f"The cheapest options take {least:.0f} bits, and the budget is {budget:.0f}.")
