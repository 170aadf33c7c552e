"""Where the bits go: rules that choose a quantizer for every matrix, plans, and models written by them."""

from rdlib.allocation.rules import exact, lagrangian, uniform

__all__ = [
    "exact",
    "lagrangian",
    "uniform",
]
