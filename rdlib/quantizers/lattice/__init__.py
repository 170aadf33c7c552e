"""Lattice quantizers."""
