"""Pages: of a notebook and of an experiment; they load nothing, hide nothing from the blind, and trust no name."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from chromium import PHONE, chromium
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from pages import HOSTILE, OTHER, PIXEL, build, figure, loads, notebook
from playwright.sync_api import expect

from rdlib.runs import page, report

ROOT = Path(__file__).parents[1]
COMMITTED = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
TABLE = pd.DataFrame(
    {
        "notebook": "01_one",
        "method": ["uniform", HOSTILE, "Lloyd–Max"] * 50,
        "bits": [1, 2, 3] * 50,
        "mse": np.geomspace(1, 1e-9, 150),
        "gap": [np.nan, 1 / 3, np.inf] * 50,
        "empty": np.nan,
    }
)


def soup(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, features="html.parser")


def embedded(html: str) -> dict:
    """The rows that a page holds for its script."""
    return json.loads(soup(html).find("script", type="application/json").get_text())


@pytest.fixture
def demo(tmp_path) -> Path:
    return build(tmp_path / "demo", TABLE)


# --- the page of a notebook ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_page_of_a_committed_notebook(path):
    executed = nbformat.read(path, as_version=4)
    html = page.html(executed, path.stem)
    assert loads(html) == [] and "<script" not in html
    found = soup(html)
    descriptions = [image["alt"] for image in found("img")]
    assert all(len(words) > 20 and "No description" not in words for words in descriptions), descriptions
    assert len(set(descriptions)) == len(descriptions)
    solutions = sum("solution" in cell.metadata.get("tags", []) for cell in executed.cells)
    assert len(found.select("details > summary + .celltag_solution")) == solutions > 0
    for rendered in found.select(".jp-RenderedMarkdown"):
        for code in rendered(["code", "pre"]):
            code.decompose()
        assert "$" not in rendered.get_text(), "a formula that is none"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_formula_is_understood(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for tex in re.findall(r"(?<![\\$])\$([^$]+)\$(?!\$)", re.sub(r"`[^`]*`", "", cell.source)):
                assert page.mathml(tex).startswith("<math"), tex


def test_mathml():
    block = page.mathml(r"R \ge \tfrac12\log_2\frac{\sigma^2}{D}", "block")
    assert 'display="block"' in block and "<mfrac>" in block and "&amp;" not in block
    assert "𝔼" in page.mathml(r"\mathbb E") and "ℝ" in page.mathml(r"\mathbb R")
    assert soup(page.mathml(rf"\text{{{HOSTILE}}}")).find(["script", "img"]) is None
    assert page.mathml(r"\left( <") == r"<code>\left( &lt;</code>"


def test_markdown_escapes_unless_told():
    assert soup(page.markdown(HOSTILE)).find(["script", "img"]) is None
    assert soup(page.markdown("<b>bold</b>", escape=False)).b is not None
    assert page.plain("A *b* `c`\n\n$x$ [d](e.ipynb)") == "A b c x d"


def test_description_of_a_figure():
    what = new_markdown_cell("**What to see.** Every bit buys 6.02 dB. And more.")
    cells = [
        new_markdown_cell("## 2 · A *curve*"),
        figure(name="by-layer"),
        what,
        figure(OTHER, alt="A dog."),
    ]
    assert page.descriptions(notebook(*cells)) == {
        "by-layer": "Figure “by layer” of section “2 · A curve”. Every bit buys 6.02 dB.",
        "2": "A dog.",
    }
    images = soup(page.html(notebook(*cells), "x"))("img")
    assert [image["alt"] for image in images] == list(page.descriptions(notebook(*cells)).values())


def test_links_and_outputs_of_a_page():
    shout = new_code_cell("print(x)", outputs=[new_output("stream", text=HOSTILE)], execution_count=1)
    content = notebook(shout, new_markdown_cell("[a](03_x.ipynb#b) [c](https://x.org/y.ipynb)"))
    html = page.html(content, "x")
    assert page.html(content, "x") == html
    links = {link["href"] for link in soup(html)("a") if not link["href"].startswith("#")}
    assert links == {"02_two.html", "03_x.html#b", "https://x.org/y.ipynb"}
    assert not soup(html)(["script", "img"]) and HOSTILE in soup(html).get_text()


# --- the page of an experiment ---------------------------------------------------------------------------


def test_report_is_self_contained_and_the_same_every_time(demo):
    html = report.render(demo)
    assert loads(html) == []
    assert report.write(demo).read_text() == html == report.render(demo)
    assert str(demo.parent) not in html


def test_report_tells_question_and_answer(demo):
    article = soup(report.render(demo)).article
    assert article.h2.get_text() == "01 · One"
    assert article.select_one(".question").get_text(strip=True) == "How far?"
    assert article.select_one(".answer").math is not None
    assert [link["href"] for link in article("a")] == [
        "02_two.html",
        "figures/01_one-only.png",
        "01_one.html",
        "01_one.ipynb",
    ]
    assert article.img["src"].endswith(PIXEL) and "only" in article.img["alt"]


def test_report_holds_every_point(demo):
    held = embedded(report.render(demo))
    assert held["columns"] == ["notebook", "method", "bits", "gap", "mse"]  # what is empty is left out
    full = [row + [None] * (len(held["columns"]) - len(row)) for row in held["rows"]]
    rows = pd.DataFrame(full, columns=held["columns"])
    assert list(rows.method) == list(TABLE.method) and list(rows.bits) == list(TABLE.bits)
    np.testing.assert_allclose(rows.mse, TABLE.mse, rtol=1e-4)
    assert list(rows.gap[:3]) == [None, 0.33333, "inf"]


def test_names_are_not_trusted(tmp_path):
    hostile = notebook(figure(name=HOSTILE.replace("/", "")), answer=HOSTILE)
    hostile.cells[0].source = f"# {HOSTILE}"
    folder = build(tmp_path / "demo", TABLE, notebooks={"01_one": hostile}, model=HOSTILE)
    html = report.render(folder)
    page_ = soup(html)
    assert [script.get("type") for script in page_("script")] == ["application/json", None]
    assert not [tag for tag in page_.find_all(True) if any(name.startswith("on") for name in tag.attrs)]
    assert loads(html) == []
    assert HOSTILE in page_.select_one("#manifest").get_text()


def test_key_figure():
    first, last = figure(name="first"), figure(OTHER, name="last")
    assert report.key_figure(notebook(first, last)).name == "last"
    first.metadata["tags"] = [report.KEY]
    assert report.key_figure(notebook(first, last)).name == "first"
    assert report.key_figure(notebook()) is None


def test_an_answer_that_is_computed_is_shown_in_place_of_the_written_one(tmp_path):
    shown = new_output("display_data", data={"text/markdown": "| | it |\n|---|---|\n| gap | 0.25 |"})
    cell = new_code_cell("display(answer)", outputs=[shown], metadata={"tags": ["answer"]})
    path = report.write(build(tmp_path / "it", TABLE, notebooks={"01_one": notebook(cell)}))
    answer = BeautifulSoup(path.read_text(), "html.parser").select_one(".answer")
    assert answer.table.find_all("td")[-1].text == "0.25" and "About" not in answer.text


def test_what_cells_note_is_shown_beside_the_answer(tmp_path):
    printed = [new_output("stream", name="stdout", text="On a grid at 5 bits, R < 5.\nMore.\n")]
    noted = new_code_cell("print(note)", metadata={"tags": [report.NOTE]}, outputs=printed)
    page_ = soup(report.render(build(tmp_path / "a", TABLE, notebooks={"01_one": notebook(figure(), noted)})))
    assert [p.get_text() for p in page_.article.select("p.note")] == ["On a grid at 5 bits, R < 5.", "More."]


def test_other_parameters_are_told(tmp_path):
    html = report.render(build(tmp_path / "big", TABLE, model="meta-llama/Llama-3.2-1B"))
    assert "model = meta-llama/Llama-3.2-1B" in soup(html).article.get_text()
    assert "own parameters" not in soup(report.render(build(tmp_path / "own", TABLE))).article.get_text()


def test_a_notebook_that_stopped_is_shown(demo):
    raised = new_output("error", ename="ValueError", evalue="no <b> weights", traceback=[])
    nbformat.write(notebook(new_code_cell("f()", outputs=[raised])), demo / "02_two.partial.ipynb")
    shutil.copy(demo / "02_two.partial.ipynb", demo / "01_one.partial.ipynb")
    one, two = soup(report.render(demo))("article")
    assert "Stopped" in one.get_text() and "the run before it" in one.get_text() and one.img
    assert "ValueError: no <b> weights" in two.get_text() and "the run before it" not in two.get_text()
    assert [link["href"] for link in two("a")] == ["02_two.partial.ipynb", "02_two.html"]


def test_an_experiment_that_never_ended_is_shown(demo):
    for name in ("manifest.json", "results.csv", "results.parquet"):
        (demo / name).unlink()
    html = report.render(demo)
    assert "not run to its end" in html and loads(html) == []
    assert [script.get("type") for script in soup(html)("script")] == [None]


def test_nothing_to_show(tmp_path):
    with pytest.raises(FileNotFoundError, match="no executed notebook; run the experiment"):
        report.write(tmp_path)


def test_script_sorts_and_filters(demo):
    """In a browser, where there is one."""
    report.write(demo)
    with chromium(*PHONE) as windows:
        tab = windows.new_page()
        faults: list[str] = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("dialog", lambda dialog: faults.append(dialog.message))
        tab.goto((demo / "index.html").as_uri())
        assert tab.locator("tbody tr").first.is_visible()
        assert tab.locator("#points tbody tr").count() == 100
        tab.get_by_role("button", name="Show 100 more").click()
        assert tab.locator("#points tbody tr").count() == 150
        tab.get_by_role("button", name="mse").click()
        assert tab.locator("#points tbody tr").first.locator("td").nth(4).text_content() == "1e-9"
        tab.get_by_role("searchbox").fill("uniform 2")  # a number is a whole cell, not a digit of some mse
        assert tab.locator("#points .count").text_content() == "0 rows."
        tab.get_by_role("searchbox").fill("LLOYD 3")
        assert tab.locator("#points .count").text_content() == "50 rows."
        tab.get_by_label("method").select_option("uniform")
        assert tab.locator("#points .count").text_content() == "0 rows."
        tab.get_by_label("method").select_option("Lloyd–Max")
        again = windows.new_page()
        again.goto(tab.url)  # the address keeps filter, list and order
        assert again.locator("#points .count").text_content() == "50 rows."
        assert again.get_by_role("searchbox").input_value() == "LLOYD 3"
        assert again.locator("th", has_text="mse").get_attribute("aria-sort") == "ascending"
        with tab.expect_download() as saved:
            tab.get_by_role("button", name="Download").click()
        rows = pd.read_csv(saved.value.path())
        assert set(rows.method) == {"Lloyd–Max"} and len(rows) == 50
        tab.get_by_label("method").select_option("uniform")
        tab.get_by_role("searchbox").fill("")
        assert tab.get_by_role("button", name="mse").is_visible()
        assert tab.get_by_role("button", name="gap").count() == 0  # none of these rows has one
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        tab.locator("figure > a").first.press("Enter")
        assert tab.locator("dialog img").get_attribute("alt") == tab.locator(
            "figure img"
        ).first.get_attribute("alt")
        tab.keyboard.press("Escape")
        expect(tab.locator("dialog")).to_have_count(0)  # a dialog tells later that it is closed
    assert faults == []


def test_reference_lies_beside_the_pages():
    """Its links lead to the pages of notebooks and of the reference, and the contents lead to the report."""
    text = "[c](../index.ipynb) [n](../02_x.ipynb#a) [r](models.md) [w](https://example.org/x.md)"
    shown = page.reference(f"# Title\n\n{text}\n", "quantizers")
    links = re.findall(r'<a href="([^"]+)"', shown)
    assert [link for link in links if not link.startswith("#")] == [
        *("../index.html", "../02_x.html#a", "models.html", "https://example.org/x.md"),
    ]
    assert "<script" not in shown
