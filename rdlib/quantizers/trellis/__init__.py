"""Trellis-coded quantizers."""
