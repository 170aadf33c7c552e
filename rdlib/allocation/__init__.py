"""Where the bits go: rules that choose a quantizer for every matrix, plans, and models written by them."""

from rdlib.allocation.plan import Plan, uniform_plan
from rdlib.allocation.rules import exact, lagrangian, uniform
