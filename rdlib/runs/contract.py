"""The contract of a quantizer, checked on one of your own, and its score beside codes that are known.

``rdlib contract ternary.py:Ternary`` names a class, ``"ternary.py:Ternary(2)"`` an expression, in a file or a module.
The tests of the package hold every quantizer of its own to more of the same (``tests/test_contract.py``).
"""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd

from rdlib.code.code import Code
from rdlib.engine import second_moments
from rdlib.measure import Signal, measure, measure_code, table
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows, load_tokenizer, read_tokens
from rdlib.quantizers import (
    GPTQ,
    EcsqCentroid,
    FeedbackEcsq,
    FeedbackTrellis,
    PerGroup,
    Quantizer,
    UniformAsymmetric,
    WaterSIC,
)
from rdlib.runs.kept import KEPT
from rdlib.theory import gaussian_rate, output_rate, spectrum

SCORE = ["method", "rate", "nmse", "gap_bits"]  # and by what it was sorted
TEXTS = {"embedded": ("calibration", "evaluation")}  # H to encode by, and to judge by
BOOKS = ("books-calibration", "books-evaluation")  # of any other model
GROUP, WINDOW, TOKENS = "q", 128, 24  # the matrix; tokens of a window, and for each input of the matrix
KNOWN: tuple[Quantizer, ...] = (
    *(UniformAsymmetric(3, PerGroup(size=128)), GPTQ(UniformAsymmetric(3, PerGroup(size=128)))),
    *(EcsqCentroid(3), FeedbackEcsq(3), WaterSIC(3), FeedbackTrellis(3, states=64)),
)
SHAPES = [(1, 1), (1, 300), (300, 1), (7, 13), (4, 128), (0, 5), (5, 0)]
LADDER = "03_vector_rd-ladder"


def load(name: str) -> Quantizer:
    """The quantizer that ``file.py:Class``, ``module:Class`` or ``…:expression`` names.

    Raises:
        ValueError: there is no such file, module or class, or it makes no quantizer.
    """
    place, colon, expression = name.partition(":")
    if not colon:
        raise ValueError(f"Name a class behind a colon, like ternary.py:Ternary, not {name!r}.")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise ValueError(f"There is no file {place}.")
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"There is no module {error.name}.") from None
    try:
        found = built(ast.parse(expression, mode="eval").body, vars(module))
        quantizer = found() if inspect.isclass(found) else found
    except (NameError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        hint = ' Give its arguments, as in "LloydMax(2)".' if isinstance(error, TypeError) else ""
        raise ValueError(f"{name} cannot be made: {error}.{hint}") from None
    if not isinstance(quantizer, Quantizer):
        raise ValueError(f"{name} is no Quantizer of rdlib.quantizers.base.")
    return quantizer


def built(node: ast.expr, names: Mapping[str, object]) -> object:
    """What an expression of names, attributes, calls and literals says, such as ``GPTQ(Uniform(3), damping=0.1)``.

    Raises:
        NameError, AttributeError, TypeError or ValueError: something in it is unknown, or is another expression.
    """
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise NameError(f"name {node.id!r} is not defined")
        return names[node.id]
    if isinstance(node, ast.Attribute):
        return getattr(built(node.value, names), node.attr)
    if isinstance(node, ast.Call):
        keywords = {keyword.arg: built(keyword.value, names) for keyword in node.keywords}
        return built(node.func, names)(*(built(a, names) for a in node.args), **keywords)
    return ast.literal_eval(node)


def checks(quantizer: Quantizer) -> Iterator[tuple[str, str]]:
    """Every clause of the contract in words, and what is wrong; nothing where it is met."""
    for clause in CLAUSES:
        try:
            clause(quantizer)
            fault = ""
        except AssertionError as error:
            fault = str(error)
        except Exception as error:  # whatever a stranger's class raises is a finding
            fault = f"{type(error).__name__}: {error}"
        yield clause.__doc__.split("\n")[0].rstrip("."), fault


def ladder(quantizer: Quantizer, samples: int = 1 << 20) -> pd.DataFrame:
    """Rate, D/σ² and gap to R(D) of N(0, 1) weights, among the codes of notebook 03; the smallest gap first."""
    W = np.random.default_rng(0).standard_normal(samples).astype(np.float32).reshape(-1, 1024)
    rated = quantizer.at(2) if 2 in quantizer.bits_allowed else quantizer
    own = table([measure(W, rated)])
    own["gap_bits"] = own.rate - gaussian_rate(own.nmse)
    known = pd.read_parquet(next(KEPT.glob(f"*/{LADDER}.parquet")))
    return _ranked([known, own], "gap_bits")


def outputs(quantizer: Quantizer, model: str = "embedded") -> tuple[str, pd.DataFrame]:
    """Rate, D/σ², gap and output gap on q of the middle layer of a model, among codes of notebook 07.

    The output gap is the rate less the least one (Gaussian weights, :func:`rdlib.theory.output_rate`) for the error of
    the layer's outputs on another text than the one whose H the codes were given.

    Returns:
        The name of the matrix, and the table, the smallest output gap first.

    Raises:
        ValueError: there is no such model, or it cannot be run.
    """
    checkpoint = open_checkpoint(model)
    layer = max(weight.layer for weight in checkpoint.weights) // 2
    weight = next(w for w in checkpoint.layer(layer) if w.group == GROUP)
    W, tokenizer = checkpoint.tensor(weight), load_tokenizer(model)
    many = -(-TOKENS * W.shape[1] // WINDOW)
    texts = (read_tokens(text, tokenizer) for text in TEXTS.get(model, BOOKS))
    parts = (cut_windows(text, WINDOW).take(many) for text in texts)
    H, judged = (second_moments(checkpoint, part, [layer])[weight] for part in parts)
    rated = [q.at(min(q.bits_allowed, key=lambda b: abs(b - quantizer.bits))) for q in KNOWN]
    tables = [table([measure_code(W, q, q.encode(W, H), judged)]) for q in (*rated, quantizer)]
    for of in tables:
        of["gap_bits"] = of.rate - gaussian_rate(of.nmse)
        of["output_gap"] = of.rate - output_rate(spectrum(judged), of.output_mse, Signal.of(W).power)
    return f"{weight.name} of {model}", _ranked(tables, "output_gap")


def _ranked(tables: list[pd.DataFrame], by: str) -> pd.DataFrame:
    """Rows of several tables by a gap, the smallest first; that of the last table is yours."""
    *known, own = tables
    both = pd.concat([*(t.assign(yours="") for t in known), own.assign(yours="←")], ignore_index=True)
    return both.sort_values(by)[list(dict.fromkeys([*SCORE, by, "yours"]))]


# --- clauses: each raises where it is not met ----------------------------------------------------------------


def _gaussian(shape: tuple[int, int] = (24, 128), dtype: object = np.float32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def _same(a: np.ndarray, b: np.ndarray, what: str) -> None:
    assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes()), what


def _is_a_frozen_value(quantizer: Quantizer) -> None:
    """A frozen value: equal at its own rate, hashable, and unchanged by encoding."""
    before = repr(quantizer)
    assert quantizer == quantizer.at(quantizer.bits) and hash(quantizer) == hash(
        quantizer.at(quantizer.bits)
    ), "at(bits) is not equal; is it a @dataclass(frozen=True)?"
    quantizer.encode(_gaussian())
    assert repr(quantizer) == before, f"after encode it is {quantizer!r}"
    assert all(quantizer.at(bits).method == quantizer.method for bits in quantizer.bits_allowed), (
        "its name changes with its rate"
    )


def _file(quantizer: Quantizer) -> None:
    """The code is the file: as long as its price, and decoded from its bytes to the same weights, bit for bit."""
    W = _gaussian()
    code = quantizer.encode(W)
    data = code.to_bytes()
    assert 8 * len(data) == code.bits, f"the file has {8 * len(data)} bits, its price is {code.bits}"
    decoded = quantizer.decode(code)
    assert decoded.shape == W.shape and decoded.dtype == np.float32, (
        f"decoded to {decoded.dtype} {decoded.shape}"
    )
    assert np.isfinite(decoded).all(), "decoded weights are not finite"
    _same(quantizer.decode(Code.from_bytes(data)), decoded, "decoding the bytes gives other weights")


def _streams(quantizer: Quantizer) -> None:
    """Every stream is needed: without any one of them the file cannot be decoded."""
    code = quantizer.encode(_gaussian())
    assert "index" in code.streams, "there is no stream 'index'"
    for name in code.streams:
        rest = Code(code.shape, {n: stream for n, stream in code.streams.items() if n != name})
        try:
            quantizer.decode(Code.from_bytes(rest.to_bytes()))
        except ValueError:
            continue
        raise AssertionError(f"it decodes without {name!r}: what does that stream say?")


def _same_file(quantizer: Quantizer) -> None:
    """The same weights give the same file, in any float type and memory layout, and are not changed."""
    W = _gaussian(dtype=ml_dtypes.bfloat16)
    before, data = W.tobytes(), quantizer.encode(W).to_bytes()
    assert quantizer.encode(W).to_bytes() == data, "a second encode gives another file"
    assert quantizer.encode(np.asfortranarray(W.astype(np.float32))).to_bytes() == data, (
        "float32 gives another file"
    )
    assert W.tobytes() == before, "encode changed W"


def _any_shape(quantizer: Quantizer) -> None:
    """A matrix of any shape is coded, also one row, one column, and none at all."""
    for shape in SHAPES:
        decoded = quantizer.decode(Code.from_bytes(quantizer.encode(_gaussian(shape)).to_bytes()))
        assert decoded.shape == shape, f"{shape} becomes {decoded.shape}"


def _zero(quantizer: Quantizer) -> None:
    """Zeros are decoded to zeros."""
    assert measure(np.zeros((5, 64), np.float16), quantizer).mse == 0


def _not_finite(quantizer: Quantizer) -> None:
    """NaN and Inf are refused in a ValueError that names the place."""
    for bad in (np.nan, np.inf):
        W = _gaussian((6, 32))
        W[3, 17] = bad
        try:
            quantizer.encode(W)
        except ValueError as error:
            assert "(3, 17)" in str(error), f"the message does not name the place: {error}"
        else:
            raise AssertionError(f"{bad} is coded")


def _large(quantizer: Quantizer) -> None:
    """Very large and very small weights are coded or refused, never turned into Inf in silence."""
    for size in (1e-30, 1e-7, 1e5, 1e30):
        try:
            code = quantizer.encode((size * np.clip(_gaussian((4, 64)), -2, 2)).astype(np.float32))
        except ValueError:
            continue
        assert np.isfinite(quantizer.decode(code)).all(), f"weights of {size:g} are decoded to Inf or NaN"


def _shannon(quantizer: Quantizer) -> None:
    """On N(0, 1) the rate is above R(D) = ½·log₂(σ²/D): every bit is counted."""
    point = measure(_gaussian((128, 512)), quantizer)
    least = float(gaussian_rate(point.nmse)) if point.nmse else np.inf
    assert point.rate > least, f"{point.rate:.3f} bits, but R(D) is {least:.3f}: something is not in the code"


def _moment(quantizer: Quantizer) -> None:
    """H changes the code where uses_H says so, and nowhere else; an H that is none is refused."""
    W, x = _gaussian((16, 64)), _gaussian((500, 64)).astype(np.float64) * np.geomspace(0.1, 10, 64)
    changed = quantizer.encode(W, x.T @ x / 500 + 0.01).to_bytes() != quantizer.encode(W).to_bytes()
    assert changed == quantizer.uses_H, (
        f"uses_H is {quantizer.uses_H}, but H {'changes' if changed else 'does not change'} it"
    )
    try:
        quantizer.encode(W, np.eye(5))
    except ValueError:
        return
    raise AssertionError("an H of the wrong size is taken")


CLAUSES: tuple[Callable[[Quantizer], None], ...] = (
    *(_is_a_frozen_value, _file, _streams, _same_file, _any_shape),
    *(_zero, _not_finite, _large, _shannon, _moment),
)
