"""What a run found, in three sentences: each number is computed from the tables that its notebooks left.

The same formulas read the tables of a run and those of a real model that the package keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

Tables = Mapping[str, pd.DataFrame]  # by name, like 03_vector_rd-ladder

LLOYD_MAX, TRELLIS = "Lloyd–Max tensor", "entropy-coded TCQ 256 states"
GPTQ, FED, WATERSIC, FED_TRELLIS = (
    "GPTQ asymmetric g128",
    "ECSQ + feedback",
    "WaterSIC",
    "trellis + feedback 64 states",
)


@dataclass(frozen=True)
class Finding:
    """A sentence with two numbers that are compared.

    Args:
        chapter: the notebook that found it.
        head: what it is about, in a few words.
        worse: the number that is behind.
        better: the number that is ahead.
        unit: of both.
        text: the sentence.
    """

    chapter: str
    head: str
    worse: str
    better: str
    unit: str
    text: str


def findings(tables: Tables) -> list[Finding]:
    """Those of the three findings whose tables are there, in the order of the chapters."""
    found = []
    for find in (_rounding, _feedback, _proxies):
        try:
            found.append(find(tables))
        except KeyError:  # no such table, method or rate in this run
            continue
    return found


def _rounding(tables: Tables) -> Finding:
    gap = tables["03_vector_rd-ladder"].set_index("method")["gap_bits"]
    return Finding(
        "03_vector_rd",
        "One weight at a time",
        f"{gap[LLOYD_MAX]:.2f}",
        f"{gap[TRELLIS]:.3f}",
        "bits above R(D)",
        f"On a Gaussian source at 2 bits, the best levels (Lloyd–Max) waste {gap[LLOYD_MAX]:.2f} bit. "
        f"An entropy-coded trellis of 256 states wastes {gap[TRELLIS]:.3f}.",
    )


def _feedback(tables: Tables) -> Finding:
    points = tables["07_allocation"]
    gap = points[points["bits"] == 3].groupby("method")["unseen"].mean()
    return Finding(
        "07_allocation",
        "GPTQ and its limit",
        f"{gap[GPTQ]:.2f}",
        f"{gap[FED_TRELLIS]:.2f}",
        "bits above the limit",
        f"At a nominal 3 bits GPTQ spends {gap[GPTQ]:.2f} bits more than the limit for its output error on unseen "
        f"text. Feedback on one even grid with an entropy coder spends {gap[FED]:.2f}, with spacings by column "
        f"(WaterSIC) {gap[WATERSIC]:.2f}, with a trellis inside {gap[FED_TRELLIS]:.2f}.",
    )


def _proxies(tables: Tables) -> Finding:
    points = tables["05_functional"]
    rho = {}
    for proxy in ("squared", "output"):
        ranks = points.groupby(["scope", "bits"])[[proxy, "kl"]].corr("spearman")["kl"]
        rho[proxy] = ranks.xs(proxy, level=-1).mean()
    return Finding(
        "05_functional",
        "Which error to look at",
        f"{rho['squared']:.2f}",
        f"{rho['output']:.2f}",
        "rank correlation with KL",
        f"Among methods at equal bits, weight error ranks the KL divergence of the model’s output with a rank "
        f"correlation of {rho['squared']:.2f}. Output error, which weighs errors by the second moments of the "
        f"inputs, reaches {rho['output']:.2f}.",
    )


@dataclass(frozen=True)
class Line:
    """One number that every model has: bits above the bound, of a method at a rate.

    Args:
        text: what is measured.
        table: of which notebook.
        method: as it is called there.
        bits: nominal rate.
        gap: the column.
        group: of matrices; all, where empty.
    """

    text: str
    table: str
    method: str
    bits: int
    gap: str
    group: str = ""

    def of(self, tables: Tables) -> float:
        """The number, a mean over weights; NaN where the run has no such points."""
        points = tables.get(self.table, pd.DataFrame(columns=["method", "bits", "group", self.gap]))
        points = points[(points.method == self.method) & (points.bits == self.bits)]
        points = points[points.group == self.group] if self.group else points
        weights = points["weights"] if "weights" in points else pd.Series(1.0, points.index)
        return float((points[self.gap] * weights).sum() / weights.sum()) if len(points) else float("nan")


LINES = (
    Line("uniform rounding, one scale, 4 bits", "02_scalar_rd", "uniform tensor", 4, "gap_bits", "down"),
    Line("Lloyd–Max, 4 bits", "02_scalar_rd", LLOYD_MAX, 4, "gap_bits", "down"),
    Line(
        "groups of 128 with the best clip, 4 bits",
        *("02_scalar_rd", "asymmetric opt. clip g128", 4, "gap_bits", "down"),
    ),
    Line("GPTQ, 3 bits, outputs on other text", "04_sota", GPTQ, 3, "output_gap"),
    Line("entropy-coded rounding, 3 bits, the same", "04_sota", "ECSQ centroid tensor", 3, "output_gap"),
)


def side_by_side(models: Mapping[str, Tables]) -> list[tuple[Line, list[float]]]:
    """Every line that all models have, and its number for each."""
    rows = [(line, [line.of(tables) for tables in models.values()]) for line in LINES]
    return [(line, numbers) for line, numbers in rows if all(n == n for n in numbers)]
