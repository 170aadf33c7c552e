"""Tables of models: what is written is read, in few bytes however wide the alphabet, and nothing else is read."""

import numpy as np
import pytest

from rdlib.code.table import ABSENT, Table

RNG = np.random.default_rng(0)


def tables() -> list[np.ndarray]:
    """Empty, full, sparse and dense ones, of one and of several contexts."""
    found = [np.zeros(0, np.uint8), np.full(1, ABSENT, np.uint8), np.full((3, 300), ABSENT, np.uint8)]
    for share in (0.0, 0.1, 0.9, 0.9999):
        table = RNG.integers(0, ABSENT, (4, 5000)).astype(np.uint8)
        table[RNG.random(table.shape) < share] = ABSENT
        found += [table, table[0]]
    return found


@pytest.mark.parametrize("table", tables(), ids=lambda table: str(table.shape))
def test_a_table_is_read_as_it_was_written(table):
    data = Table().pack(table)
    assert 8 * len(data) == Table().bits(table)
    assert np.array_equal(Table().unpack(data, table.shape), table)


def test_a_wide_alphabet_of_few_symbols_is_short():
    table = np.full(1 << 20, ABSENT, np.uint8)
    table[[0, -1]] = 7
    assert Table().bits(table) == 8 * (2 + 1 + 3)


@pytest.mark.parametrize("shape", [(8,), (9,), (12,), (2, 5), (1 << 20,)])
@pytest.mark.parametrize(
    "data", [b"", b"abc\xff", b"abc\xff\x86", b"abc\xff\x06\xff\x00", b"\xff" * 12, b"a" * 11]
)
def test_other_bytes_are_refused(data, shape):
    with pytest.raises(ValueError, match="not a table|no end"):
        Table().unpack(data, shape)
