"""The site of a run: what was found, results on a real model, and links that lead somewhere."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from pages import build, figure, loads, notebook

from rdlib.runs import launch, page, report, site, slides
from rdlib.runs.findings import (
    FED,
    FED_TRELLIS,
    GPTQ,
    LINES,
    LLOYD_MAX,
    TRELLIS,
    WATERSIC,
    findings,
    side_by_side,
)
from rdlib.runs.kept import kept_models

ROOT = Path(__file__).parents[1]
TABLES = {
    "03_vector_rd-ladder": pd.DataFrame({"method": [LLOYD_MAX, TRELLIS], "gap_bits": [0.4566, 0.0348]}),
    "07_allocation": pd.DataFrame(
        {
            "method": [GPTQ, FED, WATERSIC, FED_TRELLIS] * 2,
            "bits": 3,
            "unseen": [1.0, 0.4, 0.3, 0.2, 1.2, 0.6, 0.5, 0.4],
        }
    ),
    "05_functional": pd.DataFrame(
        {"scope": "model", "bits": 3, "squared": [1, 2, 3], "output": [2, 1, 3], "kl": [20, 10, 30]}
    ),
}


def test_findings_are_computed_from_the_tables():
    one, two, three = findings(TABLES)
    assert (one.worse, one.better) == ("0.46", "0.035") and "wastes 0.035" in one.text
    assert (two.worse, two.better) == ("1.10", "0.30") and "(WaterSIC) 0.40" in two.text
    assert (three.worse, three.better) == ("0.50", "1.00")


@pytest.mark.parametrize("missing", TABLES)
def test_a_run_without_a_table_has_the_other_findings(missing):
    rest = {name: table for name, table in TABLES.items() if name != missing}
    assert findings(rest) == [f for f in findings(TABLES) if f.chapter not in missing]
    assert findings(rest | {missing: TABLES[missing].iloc[:, :1]}) == findings(rest)


def test_models_are_compared_by_what_all_of_them_have():
    real = kept_models()["smollm2-135m"]
    alone = side_by_side({"real": real})
    assert [line for line, _ in alone] == list(LINES)
    assert all(np.isfinite(numbers).all() for _, numbers in alone)
    assert side_by_side({"real": real, "none": {}}) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A site of a run of two notebooks, with the reference."""
    folder = build(
        tmp_path_factory.mktemp("site") / "demo",
        pd.DataFrame({"notebook": ["01_one"], "method": ["uniform"], "mse": [0.1]}),
        notebooks={
            "01_one": notebook(figure(name="only")),
            "02_two": notebook(answer="See [this](#Question)."),
        },
    )
    (folder / "effort.json").write_text("{}")
    (folder / "figures").mkdir()
    for name, path in {"01_one": "figures/01_one-only.png", "": "figures/embedded.png"}.items():
        (folder / path).write_bytes(name.encode())
    shutil.copy(folder / "results.parquet", folder / "results.csv")
    for name in ("01_one", "02_two"):
        (folder / f"{name}.html").write_text('<h2 id="Question"></h2>')
    site.write(ROOT, folder)
    return folder


def test_every_page_is_there_loads_nothing_and_is_linked(made):
    pages = {path.name for path in made.glob("*.html")}
    assert {"index.html", "slides.html", "real-smollm2-135m.html", "audit-embedded.html"} <= pages
    for name in (
        name for name in pages if not name.startswith("audit-")
    ):  # these have their drawing beside them
        assert loads((made / name).read_text()) == [], name
    linked = {
        a["href"] for a in BeautifulSoup((made / "index.html").read_text(), "html.parser")("a", href=True)
    }
    assert pages - {"index.html"} <= linked


def test_links_lead_somewhere(made):
    for file in made.rglob("*.html"):
        html = BeautifulSoup(file.read_text(), "html.parser")
        for tag in html(["a", "img"]):
            address = tag.get("href") or tag.get("src")
            if not re.match("https?:|data:", address):
                name, _, place = address.partition("#")
                target = file.parent / unquote(name) if name else file
                assert target.is_file(), f"{file.name} links {address}"
                if place and target.suffix == ".html":
                    there = BeautifulSoup(target.read_text(), "html.parser")
                    assert there.find(id=place) or there.find(id=unquote(place)), (
                        f"{file.name} links {address}"
                    )


def test_headings_of_the_reference_have_their_names_on_github():
    html = BeautifulSoup(page.reference("## EXL3's codes\n\n[there](#exl3s-codes)", "x"), "html.parser")
    assert html.h2["id"] == "exl3s-codes" and html.h2.a["href"] == "#exl3s-codes"


def test_the_same_folder_gives_the_same_pages(made):
    before = {path.name: path.read_bytes() for path in made.glob("*.html")}
    site.write(ROOT, made)
    assert {path.name: path.read_bytes() for path in made.glob("*.html")} == before


def test_a_run_that_has_not_finished_has_no_site(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run; run the experiment first"):
        site.write(ROOT, tmp_path)


def test_notebooks_are_launched_where_a_repository_is_set(made, monkeypatch):
    assert "colab" not in report.render(made)
    monkeypatch.setattr(launch, "REPOSITORY", "owner/name")
    assert (
        'href="https://mybinder.org/v2/gh/owner/name/HEAD?labpath=notebooks/01_one.ipynb"'
        in report.render(made)
    )


# --- slides ----------------------------------------------------------------------------------------------


def test_slides_are_question_figure_tagged_cells_and_answer(tmp_path):
    printed = new_output("stream", name="stdout", text="a < b\n")
    tagged = [
        new_code_cell("print(x)", outputs=[printed], metadata={"tags": [slides.TAG]}),
        new_markdown_cell("The *gap*.", metadata={"tags": [slides.TAG]}),
        new_code_cell("print(y)", outputs=[printed]),
    ]
    folder = build(
        tmp_path / "demo", pd.DataFrame(), notebooks={"01_one": notebook(figure(name="only"), *tagged)}
    )
    text = slides.write(folder).read_text()
    sections = BeautifulSoup(text, "html.parser")("section")
    assert [s.get_text(" ", strip=True) for s in sections][1:] == [
        *("01 · One How far?", "01 · One", "01 · One a < b", "01 · One The gap ."),
        "01 · One: the answer About 1 2 bit, see 02 .",
    ]
    assert "only" in sections[2].img["alt"] and loads(text) == []


def test_without_a_run_there_are_no_slides(tmp_path):
    with pytest.raises(FileNotFoundError, match="no executed notebook; run the experiment"):
        slides.write(tmp_path)
