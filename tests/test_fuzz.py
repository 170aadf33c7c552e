"""Mutated bytes are refused in a sentence or read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from effort import MUTATIONS, SEED
from fuzz import READERS, fuzz
from sources import heavy, one_thread  # noqa: F401

from rdlib.allocation.plan import Plan
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import MalformedCode
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers import (
    GPTQ,
    NF4,
    ActOrder,
    EcsqMidpoint,
    EcsqOptimal,
    FeedbackTrellis,
    LloydMax,
    PerChannel,
    Rotated,
    Uniform,
    UniformMidTread,
    VectorQuantizer,
    WaterSIC,
)
from rdlib.quantizers.base import Quantizer
from rdlib.runs.parameters import read
from rdlib.runs.values import ParameterError


@pytest.mark.parametrize("name", READERS)
def test_mutated_bytes_are_refused_or_read(name, tally):
    found = fuzz(name, MUTATIONS, SEED)
    assert not found.unexpected, found.unexpected.most_common(5)
    assert found.refused > MUTATIONS / 10 and found.read > 0, "mutations reach both ends"
    tally("mutated inputs", MUTATIONS)
    tally("mutated inputs that were read", found.read)


def replaced(quantizer: Quantizer, shape: tuple[int, int] | None = None, **streams: Stream) -> Code:
    """A code of heavy weights (5, 70) with other streams, written and read."""
    code = quantizer.encode(heavy((5, 70)))
    return Code.from_bytes(Code(shape or code.shape, dict(code.streams) | streams).to_bytes())


def test_an_index_of_other_dimensions_is_refused():
    """Found by fuzzing: the compiled loop that follows the trellis raised a TypingError of numba."""
    quantizer = FeedbackTrellis(4, 8)
    index = quantizer.encode(heavy((5, 70))).streams["index"]
    with pytest.raises(MalformedCode, match="an array has other dimensions"):
        quantizer.decode(replaced(quantizer, index=Stream(index.array[..., None], index.format)))


@pytest.mark.parametrize(
    "quantizer", [Uniform(4), UniformMidTread(4), EcsqMidpoint(4), EcsqOptimal(4), LloydMax(4)]
)
def test_a_header_of_another_shape_than_the_index_is_refused(quantizer):
    """Found by fuzzing: they were decoded to the shape of the index."""
    with pytest.raises(MalformedCode, match=r"\(5, ?70\).*\(70, ?5\)|\(70, ?5\).*\(5, ?70\)"):
        quantizer.decode(replaced(quantizer, (70, 5)))


FORGERIES = [
    (LloydMax(4), "levels", Stream.floats(np.ones(3)), "are not those of Lloyd–Max tensor: index"),
    (LloydMax(4), "index", Stream.floats(np.ones((5, 70))), "'index' holds float16 instead of integers"),
    (Uniform(4), "scale", Stream.floats(np.ones((5, 1)), "float32"), None),
    (Uniform(4), "scale", Stream.floats(np.ones((1, 3)), "float32"), r"\(1, 3\) are not those of 1 groups"),
    (Rotated(Uniform(4)), "seed", Stream.fixed(np.zeros((1, 1)), 2), "'seed' should hold one number"),
    (ActOrder(GPTQ(Uniform(4))), "permutation", Stream.fixed(np.zeros(70), 70), "every column once"),
    (NF4(), "scale", Stream.floats(np.full(6, 3e38), "float32"), None),
    (Uniform(4, PerChannel()), "scale", Stream.floats(np.full((5, 1), 6e4)), None),
    (VectorQuantizer(4, 2), "codebook", Stream.floats(np.ones((1, 2, 2))), "are not those of"),
    (WaterSIC(4.0), "step", Stream.floats(np.array([3e38]), "float32"), "NaN or Inf"),
]


@pytest.mark.parametrize(("quantizer", "name", "stream", "message"), FORGERIES)
def test_streams_that_do_not_belong_together_are_refused(quantizer, name, stream, message):
    """Found by fuzzing: those of a trellis were read beyond their ends, others raised what indexing raises."""
    code = replaced(quantizer, **{name: stream})
    if message is None:
        assert np.isfinite(quantizer.decode(code)).all()
        return
    with pytest.raises(MalformedCode, match=message):
        quantizer.decode(code)


@pytest.mark.parametrize(
    ("name", "stream", "message"),
    [
        ("deviation", Stream.fixed(np.zeros(3), 4), "one a row and one a column"),
        ("offset", Stream.floats(np.array([-1000]), "float32"), "narrower than any"),
        ("first", Stream.floats(np.array([-1e7]), "float32"), "more than any encoder uses"),
        ("first", Stream.floats(np.array([1]), "float32"), "not above zero"),
        ("counts", Stream.fixed(np.zeros(300), 2), "more odd indices"),
    ],
)
def test_scales_that_no_encoder_writes_are_refused(name, stream, message):
    """Before an index is read with them."""
    with pytest.raises(ValueError, match=message):
        replaced(FeedbackTrellis(4.0, states=8), **{name: stream})


def test_integers_in_the_place_of_floats_do_not_wrap_around():
    """Found by fuzzing: a byte times a byte was a byte."""
    large = Stream.fixed([200], 256)
    code = replaced(EcsqMidpoint(4), step=large, first=large)
    assert np.array_equal(EcsqMidpoint(4).decode(code), (code["index"].astype(np.float32) + 200) * 200)


@pytest.mark.parametrize("table", [Stream.floats(np.ones(16)), Stream.fixed(np.ones((4, 4, 1)), 256)])
def test_a_table_of_another_kind_is_refused(table):
    code = EcsqMidpoint(4).encode(heavy((5, 70)))
    with pytest.raises(ValueError, match="cannot be read with a 'table' of"):
        Code.from_bytes(Code(code.shape, dict(code.streams) | {"table": table}).to_bytes())


DEEP = "[" * 100_000 + "]" * 100_000


def test_nesting_without_end_is_refused(tmp_path):
    """What makes a parser recurse is no crash."""
    (tmp_path / "plan.json").write_text(DEEP)
    with pytest.raises(ValueError, match="cannot be read as a plan"):
        Plan.load(tmp_path / "plan.json")
    (tmp_path / "model.safetensors.index.json").write_text(DEEP)
    with pytest.raises(ValueError, match="cannot be read"):
        Checkpoint(tmp_path)
    (tmp_path / "01_x.yaml").write_text("layer: " + DEEP[:10_000])
    with pytest.raises(ParameterError):
        read(tmp_path / "01_x.yaml")


def test_aliases_do_not_multiply(tmp_path):
    """The 'billion laughs' of YAML are a list of lists of aliases, and none is read."""
    lines = ["a: &a [x, x]"] + [
        f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (tmp_path / "01_x.yaml").write_text("\n".join(lines))
    with pytest.raises(ParameterError, match="a is an alias") as refused:
        read(tmp_path / "01_x.yaml")
    assert len(str(refused.value)) < 1000


CLAIMS = """
import os, resource
import numpy as np
from test_code import sealed
from rdlib.code import Ans, Code, Fixed, Float
from rdlib.code.header import Entry, write_header
from rdlib.quantizers import EcsqMidpoint, Uniform

def file(shape, payload=b"", **entries):
    return sealed(write_header(shape, entries) + payload)

one, two = np.array([0, 255], np.uint8), np.array([0, 254], np.uint8)
def ecsq(shape, table, words):
    step = Entry(Float("float32"), (1,), 32)
    entries = {"table": Entry(Fixed(256), (2,), 16), "index": Entry(Ans(table), shape, 32 * words)}
    payload = table.tobytes() + np.ones(words, np.uint32).tobytes() + np.ones(2, np.float32).tobytes()
    return file(shape, payload, **entries, step=step, first=step)

huge, large = (1 << 20, 1 << 20), (1 << 14, 1 << 14)
claims = {
    "an alphabet of one": file(huge, index=Entry(Fixed(1), huge, 0)),
    "more entries than weights": file((5, 70), index=Entry(Fixed(1), (1 << 20,), 0)),
    "one symbol in the table": ecsq(huge, one, 0),
    "a symbol that costs next to nothing": ecsq((1 << 16, 1 << 15), two, 2),
    "just few enough": ecsq(large, one, 0),
}
for memory in 2 << 30, 6 << 30:
    if not os.fork():
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        for name, data in claims.items():
            assert len(data) < 60, name
            try:
                code = Code.from_bytes(data)
                W = EcsqMidpoint(4).decode(code)
                print(name, "read", W.shape, flush=True)
            except ValueError as error:
                print(name, "refused:", error, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def test_a_claim_of_endless_symbols_takes_no_memory():
    """Files of some forty bytes, and two ends of memory: what they claim is refused, or fits."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, "-c", CLAIMS],
        env=os.environ | {"PYTHONPATH": path, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for *refused, last in lines[:5], lines[5:]:
        assert len(refused) == 4 and all("cannot be" in line for line in refused), done.stdout
        assert last == "just few enough read (16384, 16384)" or "fit into memory" in last
