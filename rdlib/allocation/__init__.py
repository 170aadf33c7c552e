"""Where the bits go: options of every matrix, rules that choose among them, plans, and models written by them."""

from rdlib.allocation.options import mixed, options
from rdlib.allocation.plan import Plan, uniform_plan
from rdlib.allocation.rules import exact, lagrangian, uniform
