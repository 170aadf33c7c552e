"""Notebooks as experiments: parameters, runs without a screen, pages and comparisons."""

from rdlib.runs.check import check_parameters
