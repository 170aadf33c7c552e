"""Functional distortion: what quantization does to the output of a model, and what predicts it."""

from rdlib.extras import extra

with extra("models", "rdlib.functional"):
    from rdlib.functional.divergence import Functional, Reference, compare, forward
    from rdlib.functional.proxies import (
        RankCorrelation,
        error_sizes,
        noise_response,
        slope,
        spearman,
        with_noise,
    )
    from rdlib.functional.quantized_model import QuantizedModel, quantize_model, read_model
    from rdlib.functional.sensitivity import Replay
