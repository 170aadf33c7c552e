"""Experiments: notebooks run with their parameters, their pages, the report, the comparison of two runs."""
