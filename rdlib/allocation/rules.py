"""Where the bits should go: one of several options for every tensor, within a budget for the model.

Options are a table with the columns ``tensor``, ``option`` (a label, the same for the same method and rate), ``bits``
(the total price of the tensor) and ``cost`` (the damage, which adds up over tensors, such as a predicted KL).
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

HALVINGS = 100  # of the interval of slopes
ROUNDING = 1e-9  # relative: what sums of costs are compared to


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
    return _at_slope(options, _slope(options, budget))


def exact(options: pd.DataFrame, budget: float) -> pd.DataFrame:
    """The options of least Σ cost with Σ bits ≤ budget, one a tensor: a multiple-choice knapsack, solved exactly.

    By dynamic programming, one tensor after the other.  Of the partial choices those stay that no other beats in
    both bits and cost, and that can still be as good as equal slope: with its λ, no choice within the budget costs
    less than Σ (cost + λ·bits) − λ·budget.

    Args:
        options: columns ``tensor``, ``option``, ``bits`` and ``cost``; any index.
        budget: bits for all tensors together.

    Returns:
        The chosen rows, one a tensor, in the order of the table.

    Raises:
        ValueError: not even the cheapest options fit.

    References:
        Sinha and Zoltners 1979, doi:10.1287/opre.27.3.503; Pisinger 1995, doi:10.1016/0377-2217(95)00015-I.
    """
    slope = _slope(options, budget)
    known = _at_slope(options, slope)
    tensors = options.groupby("tensor").indices.values()  # the rows of each
    bits, least_bits = _above_the_least(options.bits.to_numpy(float), tensors)
    price, least_price = _above_the_least((options.cost + slope * options.bits).to_numpy(float), tensors)
    room = budget - least_bits
    excess = (known.cost.sum() + slope * budget - least_price) * (1 + ROUNDING)
    spent, paid, steps = np.zeros(1), np.zeros(1), []
    for rows in sorted(tensors, key=lambda rows: -np.sort(price[rows])[:2].max()):  # few choices stay
        spent, paid = np.add.outer(spent, bits[rows]).ravel(), np.add.outer(paid, price[rows]).ravel()
        kept = _unbeaten(spent, paid - slope * spent, (spent <= room) & (paid <= excess))
        spent, paid = spent[kept], paid[kept]
        steps.append((kept // len(rows), rows[kept % len(rows)]))
    if not len(spent):
        return known
    at, chosen = np.argmin(paid - slope * spent), []
    for before, row in reversed(steps):
        chosen.append(row[at])
        at = before[at]
    return options.iloc[np.sort(chosen)]


def _above_the_least(values: np.ndarray, tensors: Iterable[np.ndarray]) -> tuple[np.ndarray, float]:
    """Each row's value less the least of its tensor, and the sum of those."""
    least = np.empty(len(values))
    for rows in tensors:
        least[rows] = values[rows].min()
    return values - least, sum(least[rows[0]] for rows in tensors)


def _unbeaten(bits: np.ndarray, cost: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Of the allowed choices those that no other beats in both, by rising bits and falling cost: their places."""
    order = np.flatnonzero(allowed)
    order = order[np.lexsort((cost[order], bits[order]))]
    best = np.minimum.accumulate(np.append(np.inf, cost[order]))
    return order[cost[order] < best[:-1]]


def _slope(options: pd.DataFrame, budget: float) -> float:
    """The least λ ≥ 0 at which :func:`_at_slope` keeps to the budget, by halving an interval.

    Raises:
        ValueError: not even the cheapest options fit.
    """
    tensor, bits, cost = _columns(options)

    def fits(slope: float) -> bool:
        return bits[_rows_at(tensor, bits, cost, slope)].sum() <= budget

    low = 0.0  # fits, or is too little
    if fits(low):
        return low
    refuse_small(options, budget)
    high = 1e-12 + 2 * _steepest(tensor, bits, cost)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):  # neighbours
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _at_slope(options: pd.DataFrame, slope: float) -> pd.DataFrame:
    """Every tensor's option of least cost + slope·bits; of two that tie, the one of fewer bits."""
    return options.iloc[_rows_at(*_columns(options), slope)]


def _columns(options: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A number for each tensor, bits and cost."""
    return pd.factorize(options.tensor)[0], options.bits.to_numpy(), options.cost.to_numpy()


def _rows_at(tensor: np.ndarray, bits: np.ndarray, cost: np.ndarray, slope: float) -> np.ndarray:
    """The rows of :func:`_at_slope`, rising."""
    order = np.lexsort((bits, cost + slope * bits))
    _, first = np.unique(tensor[order], return_index=True)
    return np.sort(order[first])


def _steepest(tensor: np.ndarray, bits: np.ndarray, cost: np.ndarray) -> float:
    """A slope at which every tensor takes its option of fewest bits."""
    steepest = 0.0
    for rows in (np.flatnonzero(tensor == own) for own in np.unique(tensor)):
        least = rows[bits[rows].argmin()]
        more = rows[bits[rows] > bits[least]]
        steepest = ((cost[least] - cost[more]) / (bits[more] - bits[least])).max(initial=steepest)
    return steepest


def refuse_small(options: pd.DataFrame, budget: float) -> None:
    """Raise a ValueError where the cheapest options of all tensors do not fit into the budget."""
    least = options.groupby("tensor").bits.min().sum()
    if least > budget:
        raise ValueError(f"The cheapest options take {least:.0f} bits, and the budget is {budget:.0f}.")
