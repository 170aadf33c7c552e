"""Scalar quantizers: one weight at a time."""
