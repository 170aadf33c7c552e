"""Functional distortion: what quantization does to the output of a model, and what predicts it."""

from rdlib.extras import extra

with extra("models", "rdlib.functional"):
    from rdlib.functional.divergence import Distribution, Functional, PerToken
    from rdlib.functional.proxies import RankCorrelation, error_sizes, slope, spearman, with_noise
