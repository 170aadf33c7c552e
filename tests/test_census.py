"""The census equals measure(), survives being killed, and says what is wrong with a tensor without stopping."""

import errno
import json
import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, default_client
from interrupted import interrupt
from random_checkpoint import write_checkpoint
from safetensors.numpy import save_file
from sources import gaussian, heavy, one_thread  # noqa: F401

import rdlib.census
from rdlib.__main__ import main
from rdlib.census import census, sampled, stored_tensors, tensors
from rdlib.census.grouped import BLOCK_FORMATS, GRANULARITIES, rounded_to_float16
from rdlib.census.rows import SCHEMA, tensor_rows
from rdlib.census.scalar import SCALAR
from rdlib.code.code import Stream
from rdlib.measure import measure
from rdlib.models.hub import EMBEDDED
from rdlib.models.weight import DTYPES, Weight
from rdlib.quantizers import Uniform

SMALL = {"vocabulary": 64, "layers": 1, "hidden": 64, "inner": 96, "key_value": 32}
QUANTIZERS = [*SCALAR, *(Uniform(4, granularity=g) for g in GRANULARITIES)]


def folder_of(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    save_file(arrays, folder / "model.safetensors")
    return folder


def table_of(folder: Path, **settings: bool) -> pd.DataFrame:
    rows = [row for tensor in stored_tensors(folder) for row in tensor_rows(tensor, **settings)]
    return pd.DataFrame(rows)


def expect_measure(W: np.ndarray, found: pd.DataFrame, bits: tuple[int, ...]) -> None:
    """Every number is measure()'s."""
    found = found.set_index(["method", "bits"])
    for quantizer in [q.at(b) for q in QUANTIZERS for b in bits] + list(BLOCK_FORMATS):
        point, row = measure(W, quantizer), found.loc[(quantizer.method, quantizer.bits)]
        for column in ("rate", "side_rate", "mse", "nmse", "sqnr_db"):
            assert row[column] == pytest.approx(getattr(point, column), rel=1e-6), (quantizer, column)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.self_attn.k_proj.weight"])
def test_embedded_model_is_what_measure_says(name):
    tensor = next(t for t in stored_tensors(EMBEDDED) if t.name == name)
    expect_measure(tensor.matrix(), pd.DataFrame(tensor_rows(tensor)), (1, 3, 8))


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.float32, (260, 257)), (ml_dtypes.bfloat16, (4, 16448)), (ml_dtypes.bfloat16, (514, 128))],
)
def test_large_tensors_are_what_measure_says(tmp_path, dtype, shape):
    W = heavy(shape, dtype)
    W[1, :70] *= 0.001
    expect_measure(W, table_of(folder_of(tmp_path, {"w": W})), (1, 4, 8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_every_type_is_what_measure_says(tmp_path, dtype):
    W = heavy((24, 200), dtype)  # no group divides the row
    expect_measure(W, table_of(folder_of(tmp_path, {"w": W})), (2, 5))


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_fp8_is_what_measure_says_of_its_values(tmp_path, dtype):
    W = gaussian((32, 64)).astype(dtype)
    tensor = Weight.named("w", W.shape, _name_of(dtype), tmp_path / "raw", 0, W.nbytes)
    tensor.file.write_bytes(W.tobytes())
    expect_measure(W.astype(np.float32), pd.DataFrame(tensor_rows(tensor)), (2, 4))


def _name_of(dtype: type) -> str:
    return next(name for name, known in DTYPES.items() if known == dtype)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_blocks_of_rows_change_nothing(tmp_path, monkeypatch, dtype):
    W = heavy((300, 64)).astype(dtype)
    tensor = Weight.named("w", W.shape, _name_of(dtype), tmp_path / "raw", 0, W.nbytes)
    tensor.file.write_bytes(W.tobytes())
    whole = pd.DataFrame(tensor_rows(tensor))
    monkeypatch.setattr(tensors, "BLOCK", 64 * 64)
    pd.testing.assert_frame_equal(pd.DataFrame(tensor_rows(tensor)), whole, rtol=1e-12)


def test_ideal_length_is_that_of_the_coder_but_for_its_last_words():
    tensor = next(t for t in stored_tensors(EMBEDDED) if t.name.endswith("0.mlp.up_proj.weight"))
    real, ideal = (pd.DataFrame(tensor_rows(tensor, grouped=False, coded=c)) for c in (True, False))
    words = (real.rate - ideal.rate) * real.weights
    assert words.between(-1e-4 * real.rate * real.weights, 64 + 1e-4 * real.rate * real.weights).all()


def test_rounding_to_float16_is_that_of_numpy():
    spread = 10.0 ** np.random.default_rng(0).integers(-9, 5, 20000)
    x = np.abs(np.random.default_rng(1).standard_normal(20000) * spread).astype(np.float32)
    half = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float32)
    x = np.concatenate([x[x < 65504], half, (half[1:] + half[:-1]) / 2])  # what lies between two, too
    assert np.array_equal([rounded_to_float16(v) for v in x], x.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("shape", [(0, 4), (1,), (3, 1)])
def test_empty_and_constant_tensors_cost_no_run(tmp_path, shape):
    rows = table_of(folder_of(tmp_path, {"w": np.full(shape, 0.5, np.float32)}))
    assert rows.error.isna().all() and (rows.mse <= 1e-6).all()


def test_bounds_hold_on_a_gaussian(tmp_path):
    rows = table_of(folder_of(tmp_path, {"w": gaussian((16, 64), ml_dtypes.bfloat16)}), blahut=True)
    assert (rows[["gaussian_gap", "blahut_gap"]].min() > 0).all()
    assert set(rows.columns) == set(SCHEMA)


def test_slower_methods_are_measured_on_some_rows(tmp_path):
    W = gaussian((48, 64), ml_dtypes.bfloat16)
    rows = table_of(folder_of(tmp_path, {"w": W}), grouped=False, sample=16).dropna(subset="sampled_rows")
    assert (rows.sampled_rows == 16).all() and (rows.gaussian_gap > -0.1).all()
    point, row = measure(W[::3], sampled.SLOW[0]), rows.iloc[0]
    assert (row.method, row.rate, row.mse) == (point.method, point.rate, point.mse)


def test_optimum_is_not_beaten_by_other_levels(tmp_path):
    rows = table_of(folder_of(tmp_path, {"w": heavy((64, 256), ml_dtypes.bfloat16)}), grouped=False)
    by_bits = rows[~rows.method.str.startswith("ECSQ")].pivot(index="bits", columns="method", values="nmse")
    lloyd_max = by_bits.pop("Lloyd–Max tensor")
    assert (lloyd_max <= by_bits.min(axis=1) * (1 + 1e-4)).all()  # its levels are rounded to float16


def test_nan_is_reported_and_the_rest_goes_on(tmp_path):
    bad = gaussian((8, 8))
    bad[2, 3] = np.nan
    arrays = {"a": bad, "b": gaussian((8, 8)), "c": np.arange(8)}
    file = census(folder_of(tmp_path / "model", arrays), tmp_path / "out", jobs=1)
    rows = pd.read_parquet(file)
    errors = rows.dropna(subset="error").set_index("name").error
    assert set(errors.index) == {"a", "c"} and "(2, 3)" in errors["a"] and "I64" in errors["c"]
    assert len(rows[rows.name == "b"]) > 50
    assert "(2, 3)" in file.with_suffix(".html").read_text()


def test_missing_and_truncated_shards_are_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "model", **SMALL)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for length in (4, 100, len(whole) - 2):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated"):
            stored_tensors(folder)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lacks the shard model-00001-of-00002"):
        stored_tensors(folder)


def test_full_disk_leaves_whole_parts(tmp_path, monkeypatch):
    folder, out = write_checkpoint(tmp_path / "model", **SMALL), tmp_path / "out"
    written = []

    def fsync(file: int) -> None:
        written.append(file)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rdlib.files.os.fsync", fsync)
    with pytest.raises(OSError, match=r"parts/\w+\.json cannot be written: No space left on device"):
        census(folder, out, jobs=1, grouped=False)
    parts = list((out / "parts").iterdir())
    assert len(parts) == 3 and all(json.loads(part.read_bytes()) for part in parts)


def test_interrupted_census_goes_on_and_ends_with_the_same_bytes(tmp_path):
    folder, out = write_checkpoint(tmp_path / "model", **SMALL), tmp_path / "out"
    whole = census(folder, tmp_path / "whole", jobs=1).read_bytes()
    command = ["census", folder, out, "--jobs", 1]
    times = interrupt("rdlib.census.run", "tensor_rows", *command, parts=out / "parts")
    assert census(folder, out, jobs=1).read_bytes() == whole
    assert all(part.stat().st_mtime_ns == t for part, t in times.items())


def test_changed_file_is_measured_again(tmp_path):
    folder = folder_of(tmp_path / "model", {"w": gaussian((8, 8))})
    before = pd.read_parquet(census(folder, tmp_path / "out", jobs=1))
    folder_of(tmp_path / "model", {"w": 2 * gaussian((8, 8))})
    after = pd.read_parquet(census(folder, tmp_path / "out", jobs=1))
    assert after.sigma[0] == pytest.approx(2 * before.sigma[0])


def test_scale_beyond_float16_is_reported(tmp_path):
    rows = table_of(folder_of(tmp_path, {"w": np.full((2, 2), 1e6, np.float32)}))
    with pytest.raises(ValueError) as refused:
        Stream.floats(np.array([1e6]))
    assert list(rows.error) == [str(refused.value)]


def test_page_stands_alone(tmp_path):
    page = census(write_checkpoint(tmp_path / "model", **SMALL), tmp_path / "out", jobs=1)
    text = page.with_suffix(".html").read_text()
    pictures = re.findall(r'<img alt="(.+?)" src="data:image/png;base64,', text)
    assert len(pictures) == 3 and "script" not in text and "http" not in text
    assert set(pd.read_parquet(page).columns) == set(SCHEMA)


def test_name_of_a_tensor_cannot_break_the_page(tmp_path):
    bad = np.full((1, 1), np.nan, np.float32)
    file = census(folder_of(tmp_path / "model", {"<script>": bad}), tmp_path / "out", jobs=1)
    assert "<script>" not in file.with_suffix(".html").read_text()


# In every worker: the first of all tensors takes for ever, and says where.
FIRST_HANGS = """
import os, threading
from rdlib.census import run
from rdlib.census.rows import tensor_rows

def first_hangs(*arguments):
    try:
        with open({mark!r}, "x") as mark:
            mark.write(f"{{os.getpid()}}\\n")
    except FileExistsError:
        return tensor_rows(*arguments)
    threading.Event().wait()

run.tensor_rows = first_hangs
"""


def test_cluster_gives_the_same_bytes_when_a_worker_dies(tmp_path):
    """A real scheduler and two workers on loopback; one is killed while it is at work on a tensor."""
    folder, out, mark = write_checkpoint(tmp_path / "model", **SMALL), tmp_path / "out", tmp_path / "at work"
    whole = census(folder, tmp_path / "whole", jobs=1).read_bytes()
    preload = tmp_path / "preload.py"
    preload.write_text(FIRST_HANGS.format(mark=str(mark)))
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    local |= {"local_directory": str(tmp_path / "dask"), "preload": [str(preload)]}
    with LocalCluster(host="127.0.0.1", **local) as cluster, ThreadPoolExecutor() as pool:
        command = ["census", str(folder), str(out), "--cluster", cluster.scheduler_address]
        ended = pool.submit(main, command)
        while not (mark.exists() and mark.read_text().endswith("\n")):
            assert not ended.done(), ended.exception()
            time.sleep(0.05)
        os.kill(int(mark.read_text()), signal.SIGKILL)
        ended.result()
        default_client().close()
    assert (out / "census.parquet").read_bytes() == whole
    shutil.rmtree(tmp_path / "dask", ignore_errors=True)


class _Unpicklable(Exception):
    """It cannot be made from its arguments alone."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")


def test_an_error_on_a_cluster_that_cannot_be_pickled_ends_the_census(tmp_path, monkeypatch):
    """Found by a user: Dask asked the worker for it again and again, and the census never ended."""

    def fails(tensor, *_):
        raise _Unpicklable("it", "broke")

    monkeypatch.setattr("rdlib.census.run.tensor_rows", fails)
    folder = write_checkpoint(tmp_path / "model", **SMALL)
    local = {"host": "127.0.0.1", "protocol": "tcp://", "processes": False, "dashboard_address": None}
    with LocalCluster(1, **local) as cluster, Client(cluster), joblib.parallel_config("dask"):
        with pytest.raises(RuntimeError, match=r"model\.\S+: _Unpicklable: it broke"):
            census(folder, tmp_path / "out")


def test_an_interrupt_inside_compiled_code_is_an_interrupt(monkeypatch):
    """Found by a test that was interrupted there: numba raises a SystemError of it."""

    def interrupted(*_):
        raise SystemError("returned a result with an exception set") from cause

    monkeypatch.setattr(rdlib.census, "census", interrupted)
    cause = KeyboardInterrupt()
    with pytest.raises(SystemExit, match="the next run goes on from there"):
        main(["census", "embedded", "out"])
    cause = None
    with pytest.raises(SystemError):
        main(["census", "embedded", "out"])
