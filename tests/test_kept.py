"""Results that the package keeps: whole, small, with all that a run of them again needs, and nothing of the machine."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pages import build

from rdlib.files import sha256
from rdlib.runs.kept import KEPT, beside, keep, kept_manifest, kept_table, side_by_side

ROOT = Path(__file__).parents[1]
LARGEST = 3_000_000  # bytes of an experiment's tables
TABLE = pd.DataFrame({"method": ["a", "b"], "rate": [2.0, 3.0]})


@pytest.fixture
def finished(tmp_path) -> Path:
    folder = build(tmp_path / "real", TABLE)
    (folder / "tables").mkdir()
    TABLE.to_parquet(folder / "tables/01_one.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["notebooks"]["01_one"]["files"] = {"tables/01_one.parquet": "0c", "01_one.html": "0d"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "effort.json").write_text('{"01_one": {"seconds": 2.5, "gigabytes": 0.4}}')
    return folder


def test_tables_are_kept_with_what_made_them(finished, tmp_path, monkeypatch):
    place = keep(finished, tmp_path / "kept")
    monkeypatch.setattr("rdlib.runs.kept.KEPT", tmp_path / "kept")
    pd.testing.assert_frame_equal(kept_table("real", "01_one"), TABLE)
    manifest = kept_manifest("real")
    assert manifest["files"] == {"01_one.parquet": sha256(place / "01_one.parquet")}
    assert manifest["notebooks"]["01_one"]["took"] == {"seconds": 2.5, "gigabytes": 0.4}
    assert "assets" not in manifest and manifest["notebooks"]["01_one"]["commit"] == "0123456789abcdef"


def test_what_is_no_longer_made_is_no_longer_kept(finished, tmp_path):
    (tmp_path / "kept/real").mkdir(parents=True)
    (tmp_path / "kept/real/00_zero.parquet").write_bytes(b"")
    assert sorted(path.name for path in keep(finished, tmp_path / "kept").iterdir()) == [
        "01_one.parquet",
        "manifest.json",
    ]


def test_notebooks_that_a_run_leaves_out_are_kept_as_they_were(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("rdlib.runs.kept.KEPT", tmp_path / "kept")
    keep(finished, tmp_path / "kept")
    manifest = json.loads((finished / "manifest.json").read_text())
    entry = manifest["notebooks"].pop("01_one")
    TABLE.assign(rate=7.0).to_parquet(finished / "tables/02_two.parquet")
    manifest["notebooks"]["02_two"] = entry | {"files": {"tables/02_two.parquet": "0e"}, "commit": "fedcba"}
    (finished / "manifest.json").write_text(json.dumps(manifest))
    (finished / "effort.json").write_text('{"02_two": {"seconds": 1.0, "gigabytes": 0.1}}')
    keep(finished, tmp_path / "kept")
    pd.testing.assert_frame_equal(kept_table("real", "01_one"), TABLE)
    assert kept_table("real", "02_two").rate.sum() == 14
    commits = {name: e["commit"] for name, e in kept_manifest("real")["notebooks"].items()}
    assert commits == {"01_one": "0123456789abcdef", "02_two": "fedcba"}


@pytest.mark.parametrize("missing", ["manifest.json", "effort.json"])
def test_a_run_that_has_not_finished_is_not_kept(finished, missing, tmp_path):
    (finished / missing).unlink()
    with pytest.raises(ValueError, match=f"has no {missing}: run the experiment"):
        keep(finished, tmp_path / "kept")


def test_a_table_that_is_not_kept_is_refused():
    with pytest.raises(ValueError, match=r"No table none/01_one is kept"):
        kept_table("none", "01_one")


def test_what_is_kept_of_another_model_lies_beside_a_run(finished, tmp_path, monkeypatch):
    keep(finished, tmp_path / "kept")
    monkeypatch.setattr("rdlib.runs.kept.KEPT", tmp_path / "kept")
    run = TABLE.assign(rate=1.0)
    assert {name: points.rate.sum() for name, points in beside("01_one", run, "a/b").items()} == {
        "b": 2.0,
        "embedded": 5.0,
    }
    assert beside("01_one", run, "embedded").keys() == {"embedded"}, "a model once"
    assert beside("02_two", run, "a/b").keys() == {"b"}


def test_an_answer_has_a_column_a_model():
    answers = {"small": {"a": 1.234, "b": 2.0}, "real": {"a": 0.5, "c": float("nan")}}
    assert side_by_side(answers).data.splitlines() == [
        "|  | small | real |",
        "| --- | --: | --: |",
        "| a | 1.23 | 0.50 |",
        "| b | 2.00 | – |",
        "| c | – | – |",
    ]


def test_what_the_package_keeps():
    for folder in sorted(KEPT.glob("*")):
        manifest = kept_manifest(folder.name)
        assert (ROOT / "params" / f"{folder.name}.yaml").is_file()
        assert {path.name for path in folder.glob("*.parquet")} == set(manifest["files"])
        assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST
        for name, digest in manifest["files"].items():
            assert sha256(folder / name) == digest and len(pd.read_parquet(folder / name))
        text = (folder / "manifest.json").read_text()
        assert not re.search(r'"/|"~|[A-Z]:\\\\|://', text), "no path, no address"
        assert not any(entry["commit"].endswith("-dirty") for entry in manifest["notebooks"].values())
