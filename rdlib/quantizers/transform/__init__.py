"""Quantizers of transformed weights: rotated, scaled by input."""
