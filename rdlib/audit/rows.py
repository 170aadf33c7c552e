"""One tensor of a file in, its row of the audit out."""

import numpy as np
from numba import get_num_threads, set_num_threads

from rdlib.audit.fields import FIELDS, gathered, on_disk
from rdlib.audit.pair import Pair
from rdlib.census.tensors import histogram_of, widened
from rdlib.checkpoints.lossless import coded_bits
from rdlib.checkpoints.reader import EncodedLayer
from rdlib.grid import find_grid
from rdlib.measure import distances
from rdlib.theory import rate_lower_at
from rdlib.weights import refuse_non_finite

OUTPUT: dict[str, str] = {
    "output_db": "output over its error, by H of the calibration text, dB",
    "output_limit": "the least rate for that error, bits per weight",
    "held_out_db": "output over its error, by H of the text that the file is judged by, dB",
    "held_out_limit": "the least rate for that error, bits per weight; missing where inputs are more than tokens",
    "output_gap": "rate − held_out_limit",
    "model_limit": "the least layers_rate for kl, if weights were Gaussian and KL quadratic in their errors",
    "model_gap": "layers_rate − model_limit",
    "kl": "KL(P‖Q) of the original's predictions P and the file's Q, nats; of a tensor an estimate, see below",
    "kl_error": "standard error of kl, windows as clusters",
    "kl_floor": "KL of the original with itself in bfloat16: what less than that means nothing",
    "kl_paired": "kl less that of the best file, on the same predictions",
    "kl_paired_error": "its standard error",
    "kl_median": "half of the predictions have less",
    "kl_p99": "99 % of the predictions have less",
    "kl_p999": "99.9 % of the predictions have less",
    "agreement": "how often the most probable token is the same",
    "agreement_error": "standard error",
    "perplexity": "exp of the mean loss of the file, per token",
    "reference_perplexity": "the same of the original",
    "ln_perplexity_ratio": "ln of their ratio",
    "ln_perplexity_ratio_error": "standard error, token by token",
    "protocol": "text, windows, tokens",
}
SCHEMA: dict[str, str] = {
    "file": "that was audited",
    "name": "of the tensor in the model; empty in the row of a whole file, or of a whole group",
    "layer": "0 …, or −1 for what belongs to no layer",
    "group": "q, k, v, o, gate, up, down, embed, lm_head, or other; all for a whole file",
    "type": "how it is stored: Q4_K, GPTQ g128, BF16",
    "rows": "out",
    "columns": "in",
    "weights": "how many numbers it holds; of the file, how many the model has",
    "note": "what a reader should know: see Warnings",
    "error": "why it could not be measured; then distortion and gap are missing",
    "bits": "that it takes in the file",
    "rate": "bits / weights",
    **{field: f"bits of {what}" for field, what in FIELDS.items()},
    **{f"{field}_coded": f"{field} after an entropy coder of single symbols, its table included" for field in FIELDS},
    "layers_rate": "bits per weight of the matrices of the layers; of a file",
    "needed": "bits that a decoder needs: without public tables, orders that are no order, and what is stored twice",
    "power": "E[w²] of the original",
    "mse": "D = E[(w − ŵ)²]",
    "sqnr_db": "10·log₁₀(E[w²] / D)",
    "correlation": "⟨w, ŵ⟩ / ‖w‖‖ŵ‖",
    "limit": "R(D) of the original's histogram at this D, a certified lower bound, bits per weight",
    "gap": "rate − limit",
    "grid": "bits per weight of a lossless code of the original, whose weights lie on a grid; missing where on none",
    **OUTPUT,
}  # fmt: skip
UNLIKE = 0.2  # correlation below which two tensors are not the same weights
LEAST = 4.0**-9  # D/σ² below which the limit is that of this


def tensor_row(pair: Pair, name: str) -> dict:
    """The row of a tensor, with keys of ``SCHEMA``; one that says why, where it cannot be measured.

    Args:
        pair: the file and its original.
        name: of the tensor.
    """
    stored, original = pair.quantized.checkpoint.tensors.get(name), pair.weight(name)
    row = {"name": name, "bits": sum(pair.bits(name).values())}
    if shape := original or stored:
        row |= {"layer": shape.layer, "group": shape.group, "weights": shape.size}
        row |= dict(zip(("rows", "columns"), shape.matrix_shape, strict=True))
    threads = get_num_threads()
    set_num_threads(1)  # tensors are measured side by side already
    try:
        layer = pair.layer(name)
        row |= _spent(pair, name, layer)
        if original is not None and name not in pair.quantized.scaled_norms:
            narrow = original.matrix()
            W = widened(narrow)
            row |= _compared(name, W, layer.weight)
            row |= _limits(narrow, W, row["mse"], row["bits"]) if pair.coded(name) else {}
    except ValueError as error:
        unread = {} if "needed" in row else {"codes" if pair.coded(name) else "unquantized": row["bits"]}
        row |= {"error": str(error)} | unread
    finally:
        set_num_threads(threads)
    return row | {"rate": row["bits"] / row["weights"]} if row.get("weights") else row


def _spent(pair: Pair, name: str, layer: EncodedLayer) -> dict:
    """Bits of a tensor by field, as they are and as a coder would make them."""
    stored, coded = pair.bits(name), coded_bits(layer.code)
    row = {"needed": sum(layer.bits.values())}
    if not pair.coded(name):
        dtype = pair.quantized.checkpoint.tensors[name].dtype
        return row | stored | {"type": dtype, "unquantized_coded": sum(coded.values())}
    row |= {f"{field}_coded": bits for field, bits in gathered(coded).items()}
    return row | on_disk(stored, layer.bits) | {"type": layer.decoder.method.removeprefix("GGUF ")}


def _compared(name: str, W: np.ndarray, W_hat: np.ndarray) -> dict:
    """How far a tensor is from the original W.

    Raises:
        ValueError: it is not finite, or another tensor.
    """
    if W.shape != W_hat.shape:
        raise ValueError(f"{name} is {W_hat.shape}, and that of the original {W.shape}.")
    refuse_non_finite(W_hat, name)
    found = distances(W, W_hat)
    D, own = found["mse"], float(np.vdot(W_hat, W_hat)) / max(W.size, 1)
    power = D * 10 ** (found["sqnr_db"] / 10) if D else own
    alike = (power + own - D) / (2 * (power * own) ** 0.5) if power and own else float(power == own)
    if alike < UNLIKE:
        raise ValueError(
            f"{name} has nothing in common with that of the original (correlation {alike:.3f}): another model, or rows "
            "in another order."
        )
    return {"mse": D, "power": power, "sqnr_db": found["sqnr_db"], "correlation": alike}


def _limits(narrow: np.ndarray, W: np.ndarray, D: float, bits: int) -> dict:
    """What so much distortion takes, and how many bits are spent beyond that.

    Args:
        narrow: W in the type in which it is stored: few values, of which the histogram is made.
        W: in float32.
        D: mean squared error.
        bits: of the tensor.
    """
    histogram, grid = histogram_of(narrow), find_grid(W)
    limit = rate_lower_at(histogram.values, histogram.counts, max(D, LEAST * histogram.variance))
    return {"limit": limit, "gap": bits / W.size - limit, "grid": grid and grid.rate}
