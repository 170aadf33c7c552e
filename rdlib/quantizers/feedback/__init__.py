"""Quantizers that feed the error of one column to those after it."""
