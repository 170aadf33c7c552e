"""Mutated bytes for every reader of foreign bytes: the right error, or a value, and nothing else.

Over half of the mutated codes get a valid checksum again, so that they reach the parser; forgeries are codes that
the parser has nothing against, but whose streams do not belong together.
"""

import json
import re
import struct
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from gguf_files import llama_tensors, tokenizer_metadata, write_llama
from quantizer_list import ALL
from safetensors.numpy import save, save_file
from sources import heavy
from test_checkpoints import gptq_folder

from rdlib.allocation.plan import Plan
from rdlib.census import stored_tensors
from rdlib.checkpoints.quantized import IN_THE_BOX, QuantizedCheckpoint, open_quantized
from rdlib.code.code import Code, Stream, open_envelope
from rdlib.code.fixed import Fixed
from rdlib.code.floats import Float
from rdlib.code.header import CHECKSUM
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf import GGUFContainer
from rdlib.runs.parameters import Parameter, chosen, read
from rdlib.runs.values import ParameterError

NUMBERS = [
    b"0",
    b"-1",
    b"1",
    b"7",
    b"255",
    b"1.5",
    b"65536",
    b"4294967296",
    b"140737488355328",
    b"1e99",
    b"null",
]
PARAMETERS = {
    "model": Parameter("model", "str", "embedded", "which"),
    "layer": Parameter("layer", "int", 1, "of it"),
    "bits": Parameter("bits", "list", [1, 2], "rates"),
    "step": Parameter("step", "float", 0.5, "of a grid"),
}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to four changes: bits, bytes, slices, and numbers in text."""
    for _ in range(random.integers(1, 5)):
        data = _CHANGES[random.integers(len(_CHANGES))](data, random)
    return data


def _place(data: bytes, random: np.random.Generator) -> tuple[int, int]:
    begin = int(random.integers(len(data) + 1))
    return begin, begin + int(random.integers(1, 9))


def _flip(data: bytes, random: np.random.Generator) -> bytes:
    i = int(random.integers(max(len(data), 1)))
    return data[:i] + bytes(b ^ (1 << random.integers(8)) for b in data[i : i + 1]) + data[i + 1 :]


def _cut(data: bytes, random: np.random.Generator) -> bytes:
    begin, end = _place(data, random)
    return data[:begin] + data[end:]


def _insert(data: bytes, random: np.random.Generator) -> bytes:
    begin, end = _place(data, random)
    return data[:begin] + random.bytes(end - begin) + data[begin:]


def _repeat(data: bytes, random: np.random.Generator) -> bytes:
    begin, end = _place(data, random)
    return data[:end] + data[begin:end] + data[end:]


def _truncate(data: bytes, random: np.random.Generator) -> bytes:
    return data[: int(random.integers(len(data) + 1))]


def _number(data: bytes, random: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"\d+", data[:2000]))
    if not found:
        return data
    here = found[random.integers(len(found))]
    return data[: here.start()] + NUMBERS[random.integers(len(NUMBERS))] + data[here.end() :]


_CHANGES = (_flip, _cut, _insert, _repeat, _truncate, _number, _number, _number)


# --- readers: each yields one mutated input at a time, as something to be read --------------------------------

Read = Callable[[], object]


def codes(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """Files of codes, decoded by the quantizer that wrote them."""
    W = heavy((5, 70))
    seeds = [(q, q.encode(W).to_bytes()) for q in ALL]
    while True:
        quantizer, data = seeds[random.integers(len(seeds))]
        if random.random() < 0.5:
            data = mutated(data, random)
        else:  # bits of the streams, which the parser lets through
            begin = len(data) - len(open_envelope(data)[2]) - CHECKSUM
            for _ in range(random.integers(1, 5)):
                data = data[:begin] + _flip(data[begin:-4], random) + data[-4:]
        if random.random() < 0.7:
            data = data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))
        yield partial(_decoded, quantizer, data)


def _decoded(quantizer: object, data: bytes) -> None:
    code = Code.from_bytes(data)
    again = Code.from_bytes(code.to_bytes())
    assert 8 * len(data) == code.bits, f"{quantizer.method}: {code.bits} bits for a file of {len(data)} bytes"
    assert again.shape == code.shape and again.streams.keys() == code.streams.keys()
    decoded = quantizer.decode(code)
    assert decoded.shape == code.shape, f"{quantizer.method}: {decoded.shape} for {code.shape}"
    assert decoded.dtype == np.float32 and np.isfinite(decoded).all()


def forgeries(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """Codes that can be parsed, with a stream left out or in another shape or format, or with another shape of W."""
    W = heavy((5, 70))
    seeds = [(q, q.encode(W)) for q in ALL]
    shapes = [(1, 70), (5, 1), (70, 5), (0, 0), (6, 70), (5, 71), (350, 1), (10, 35)]
    while True:
        quantizer, code = seeds[random.integers(len(seeds))]
        shape, streams = code.shape, dict(code.streams)
        if random.random() < 0.1:
            shape = shapes[random.integers(len(shapes))]
        elif random.random() < 0.1:
            del streams[list(streams)[random.integers(len(streams))]]
        for _ in range(random.integers(1, 3) if shape == code.shape else 0):
            name = [*streams, "scale"][random.integers(len(streams) + 1)]
            streams[name] = _forged(streams.get(name) or Stream.floats(np.ones((5, 1))), random)
        try:
            data = Code(shape, streams).to_bytes()
        except (ValueError, IndexError):  # it cannot even be written: a symbol that its table does not have
            continue
        yield partial(_decoded, quantizer, data)


def _forged(stream: Stream, random: np.random.Generator) -> Stream:
    """Another stream of a shape, an alphabet or numbers that its place is not made for."""
    array, form = stream.array, stream.format
    kind = random.integers(8)
    if kind < 5 and array.ndim:
        cut = array[: random.integers(len(array) + 1)]
        twice = np.concatenate([array, array])
        return Stream([cut, twice, array.T.copy(), array.reshape(-1), array[..., None]][kind], form)
    if isinstance(form, Fixed) and kind < 7:
        size = [1, 2, 3, 16, 17, 255, 256, 65536, form.size + 1, 2 * form.size][random.integers(10)]
        return Stream.fixed(random.integers(0, size, array.shape), size)
    if isinstance(form, Fixed):
        return Stream.floats(array.astype(np.float32), "float32")
    if isinstance(form, Float) and kind < 7:
        numbers = np.frombuffer(random.bytes(array.nbytes), array.dtype).reshape(array.shape)
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(numbers.astype(np.float64)).all()
        return Stream(numbers, form) if finite else stream
    return Stream.fixed(np.zeros(array.shape, np.uint8), 4)


def safetensors(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """Checkpoints of one file, through the census and through :class:`rdlib.models.checkpoint.Checkpoint`."""
    arrays = {"model.layers.0.mlp.up_proj.weight": heavy((6, 8)), "model.norm.weight": heavy((1, 8))[0]}
    seed = save(arrays)
    (folder / "config.json").write_text("{}")
    while True:
        data = mutated(seed[: 8 + 400], random) + seed[8 + 400 :]
        if random.random() < 0.7:  # a header of the length that it says
            head = mutated(seed[8 : 8 + struct.unpack("<Q", seed[:8])[0]], random)
            data = struct.pack("<Q", len(head)) + head + seed[8 + struct.unpack("<Q", seed[:8])[0] :]
        yield partial(_read_checkpoint, folder, data)


def _read_checkpoint(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    for tensor in stored_tensors(folder):
        tensor.matrix()
    checkpoint = Checkpoint(folder)
    for name in checkpoint.names:
        checkpoint.tensor(name)


def indices(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """The index of a sharded checkpoint."""
    save_file({"a": heavy((2, 2))}, folder / "one.safetensors")
    save_file({"b": heavy((2, 2))}, folder / "two.safetensors")
    seed = json.dumps(
        {"metadata": {"total_size": 32}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    )
    (folder / "config.json").write_text("{}")
    while True:
        yield partial(_read_index, folder, mutated(seed.encode(), random))


def _read_index(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors.index.json").write_bytes(data)
    checkpoint = Checkpoint(folder)
    for name in checkpoint.names:
        checkpoint.tensor(name)


PRODUCERS = [
    name
    for name in IN_THE_BOX
    if name.startswith("multi-head-") and "8bit" not in name and "2bit" not in name
]


def quantized(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """Tensors and settings of a matrix as each package wrote it, or GPTQ by hand."""
    _, by_hand = gptq_folder(folder, 4, "gptq", ordered=True)
    seeds = [({f"{BY_HAND}.{name}": t for name, t in by_hand.items()}, *_settings(folder))]
    seeds += [seed for name in PRODUCERS for seed in _stored_layers(name)]
    while True:
        tensors, key, config = deepcopy(seeds[random.integers(len(seeds))])
        for _ in range(random.integers(1, 3)):
            _spoil(tensors, config, random)
        yield partial(_read_quantized, folder, tensors, {key: config})


BY_HAND = "model.layers.0.mlp.up_proj"


def _settings(folder: Path) -> tuple[str, dict]:
    """The settings of a checkpoint, after what config.json calls them."""
    config = json.loads((folder / "config.json").read_text())
    key = "quantization" if "quantization" in config else "quantization_config"
    return key, config[key]


def _stored_layers(name: str) -> Iterator[tuple[dict[str, np.ndarray], str, dict]]:
    """The tensors of one matrix of each kind of a checkpoint in the box, and the settings."""
    checkpoint, quantized = Checkpoint(IN_THE_BOX[name]), open_quantized(name)
    kinds = {repr(quantized.packed(layer).decoder): layer for layer in quantized.layers}
    for layer in kinds.values():
        stem = layer.removesuffix("weight")
        tensors = {n: checkpoint.stored(n) for n in checkpoint.names if n.startswith(stem)}
        yield tensors, *_settings(IN_THE_BOX[name])


def _spoil(tensors: dict[str, np.ndarray], config: dict, random: np.random.Generator) -> None:
    """Change one thing in a tensor or in a setting."""
    if random.random() < 0.3 or not tensors:
        _spoil_settings(config, random)
        return
    name = list(tensors)[random.integers(len(tensors))]
    array = tensors[name]
    kind = random.integers(7)
    if kind == 0:
        del tensors[name]
    elif kind == 1 and array.ndim:
        tensors[name] = array[: random.integers(len(array) + 1)]
    elif kind == 2:
        with np.errstate(all="ignore"):
            tensors[name] = array.astype([np.int64, np.float32, np.uint8, np.float16][random.integers(4)])
    elif kind == 3:
        tensors[name] = np.frombuffer(random.bytes(array.nbytes), array.dtype).reshape(array.shape)
    elif kind == 4:
        tensors[name] = array.reshape(-1)
    elif kind == 5:
        tensors[name] = array.T
    elif array.dtype == np.uint8:  # the state of bitsandbytes is JSON
        tensors[name] = np.frombuffer(mutated(array.tobytes(), random), np.uint8).reshape(-1)


VALUES = [
    *(
        0,
        -1,
        3,
        5,
        64,
        1 << 40,
        2.5,
        "x",
        None,
        True,
        [],
        {},
        [1],
        "gptq_v2",
        "awq",
        "nf4",
        "fp4",
        "int",
        "float",
    ),
    *(
        "pack-quantized",
        "mxfp8-quantized",
        "naive-quantized",
        "channel",
        "block",
        "group",
        ["re:.*"],
        ["re:("],
        "fp8",
    ),
]


def _spoil_settings(config: dict, random: np.random.Generator) -> None:
    """Change one setting, at any depth."""
    while True:
        key = list(config)[random.integers(len(config))]
        if not isinstance(config[key], dict) or not config[key] or random.random() < 0.2:
            config[key] = deepcopy(VALUES[random.integers(len(VALUES))])
            return
        config = config[key]


def _read_quantized(folder: Path, tensors: dict, config: dict) -> None:
    save_file({n: np.array(t, order="C") for n, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    checkpoint = QuantizedCheckpoint(folder)
    for layer in checkpoint.layers:
        assert np.isfinite(checkpoint.tensor(layer)).all()
        assert all(bits >= 0 for bits in checkpoint.stored_bits(layer).values())


SMALL = {
    "embedding_length": 32,
    "feed_forward_length": 32,
    "block_count": 1,
    "head_count": 2,
    "head_count_kv": 1,
    "vocabulary": 260,
}


def gguf(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """A GGUF file, mostly its keys and the descriptions of its tensors: as tensors, configuration and tokenizer."""
    tensors = llama_tensors(config=SMALL)
    seed = write_llama(folder / "seed.gguf", tensors, "Q8_0", tokenizer_metadata(), config=SMALL).read_bytes()
    vocabulary = seed.index(b"tokenizer.ggml.tokens"), seed.index(b"tokenizer.ggml.bos_token_id")
    end = seed.index(b"blk.0.ffn_down.weight") + 100
    while True:
        begin, stop = [(0, vocabulary[0]), (vocabulary[1], end), vocabulary, (0, len(seed))][
            random.integers(4)
        ]
        part = seed[begin:stop]
        for _ in range(random.integers(1, 4)):
            part = mutated(part, random) if random.random() < 0.3 else _flip(part, random)
        yield partial(_read_gguf, folder / "a.gguf", seed[:begin] + part + seed[stop:])


def _read_gguf(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    model = GGUFContainer(path)
    checkpoint = Checkpoint(model)
    for name in checkpoint.names:
        checkpoint.tensor(name)
    assert model.config["hidden_size"] > 0
    assert model.tokenizer("the") is not None


def parameters(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """The YAML file of a notebook."""
    seed = b"# the layer\nmodel: some/model\nlayer: 3\nbits: [1, 2, 3]\nstep: 0.25\n"
    while True:
        yield partial(_read_parameters, folder, mutated(seed, random))


def _read_parameters(folder: Path, data: bytes) -> None:
    file = folder / "01_x.yaml"
    file.write_bytes(data)
    for name, value in chosen(read(file), {"01_x": PARAMETERS}, file).get("01_x", {}).items():
        assert name in PARAMETERS and value is not None


def plans(random: np.random.Generator, folder: Path) -> Iterator[Read]:
    """Plans of which quantizer writes which matrix."""
    file = folder / "plan.json"
    Plan({f"w{i}": q for i, q in enumerate(ALL[:: len(ALL) // 12])}).save(file)
    seed = file.read_bytes()
    while True:
        yield partial(_read_plan, file, mutated(seed, random))


def _read_plan(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    Plan.load(file)


READERS = {
    f.__name__: f for f in (codes, forgeries, safetensors, indices, quantized, gguf, parameters, plans)
}
ERRORS = {name: ValueError for name in READERS} | {"parameters": ParameterError}


@dataclass
class Tally:
    """How many mutated inputs were refused, were read, and did what they should not."""

    refused: int = 0
    read: int = 0
    unexpected: Counter = None


def fuzz(name: str, count: int, seed: int) -> Tally:
    """Read so many mutated inputs; warnings are errors."""
    tally = Tally(unexpected=Counter())
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = READERS[name](random, Path(folder))
        for _ in range(count):
            try:
                next(inputs)()
                tally.read += 1
            except ERRORS[name]:
                tally.refused += 1
            except Exception as error:  # whatever it is, it is what is looked for
                tally.unexpected[f"{type(error).__name__}: {str(error)[:100]} {_where(error)}"] += 1
    return tally


def _where(error: BaseException) -> str:
    """The innermost line of rdlib that the error passed through."""
    place, frame = "", error.__traceback__
    while frame:
        code = frame.tb_frame.f_code
        if "rdlib" in code.co_filename or "fuzz" in code.co_filename:
            place = f"{Path(code.co_filename).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place
