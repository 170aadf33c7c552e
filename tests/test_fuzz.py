"""Mutated bytes are refused in a sentence or read; `make fuzz` is the long run of the same."""

import json
import os
import struct
import zlib

import pytest
from fuzz import READERS, fuzz
from sources import one_thread  # noqa: F401
from test_code import sealed, small_code

from rdlib.code import MAGIC, Code, open_envelope
from rdlib.models import Checkpoint
from rdlib.parameters import ParameterError, chosen
from rdlib.plan import Plan

COUNTS = {
    "codes": 6000,
    "safetensors": 4000,
    "indices": 3000,
    "quantized": 3000,
    "parameters": 3000,
    "plans": 3000,
}


@pytest.mark.parametrize("name", READERS)
def test_mutated_bytes_are_refused_or_read(name, tally):
    count = int(os.environ.get("MUTATIONS", COUNTS[name]))
    found = fuzz(name, count)
    assert not found.unexpected, found.unexpected.most_common(5)
    assert found.refused > count / 10 and found.read > 0, "mutations reach both ends"
    tally("mutated inputs", count)
    tally("mutated inputs that were read", found.read)


DEEP = "[" * 100_000 + "]" * 100_000


def test_nesting_without_end_is_refused(tmp_path):
    """What makes a parser recurse is no crash."""
    header, payload = open_envelope(small_code().to_bytes())
    head = json.dumps(header | {"shape": 0}).replace('"shape": 0', '"shape": ' + DEEP).encode()
    body = MAGIC + struct.pack("<I", len(head)) + head + payload
    with pytest.raises(ValueError, match="header of the code cannot be read"):
        Code.from_bytes(body + struct.pack("<I", zlib.crc32(body)))
    (tmp_path / "plan.json").write_text(DEEP)
    with pytest.raises(ValueError, match="cannot be read as a plan"):
        Plan.load(tmp_path / "plan.json")
    (tmp_path / "model.safetensors.index.json").write_text(DEEP)
    with pytest.raises(ValueError, match="cannot be read"):
        Checkpoint(tmp_path)
    (tmp_path / "01_x.yaml").write_text("layer: " + DEEP[:10_000])
    with pytest.raises(ParameterError):
        chosen(tmp_path / "01_x.yaml", {})


def test_aliases_do_not_multiply(tmp_path):
    """The 'billion laughs' of YAML are a list of lists, and no list is a parameter here."""
    lines = ["a: &a [x, x]"] + [
        f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (tmp_path / "01_x.yaml").write_text("\n".join(lines))
    with pytest.raises(ParameterError) as refused:
        chosen(tmp_path / "01_x.yaml", {})
    assert len(str(refused.value)) < 1000


def test_a_claim_of_endless_symbols_takes_no_memory():
    """A stream of one possible symbol costs nothing, however many there are said to be."""
    header, payload = open_envelope(small_code().to_bytes())
    header["streams"] = [["index", ["fixed", 1], [1 << 40], 0]]
    header["shape"] = [1 << 20, 1 << 20]
    with pytest.raises(ValueError):
        Code.from_bytes(sealed(header, b""))
