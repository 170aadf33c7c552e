"""A notebook as one HTML page that needs no network: formulas are MathML, figures are described in words."""

import copy
import html as entities
import re
import unicodedata
from xml.etree import ElementTree

import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert_to_element
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from rdlib.runs import notebook as notebooks

# Links to notebooks and to pages of the reference, from one another.
PAGES = re.compile(r"^((?:\.\./|reference/)?[\w.-]+)\.(?:ipynb|md)(#.*|$)")

# nbconvert's page was made for a desk: leave out its margins on a phone, and what moves on paper.
STYLE = """
body { color: #111; }
math[display="block"] { overflow-x: auto; overflow-y: hidden; padding: 0.3em 0; }
.jp-RenderedImage img { max-width: 100%; height: auto; }
summary { cursor: pointer; padding: 0.3em 6.5em; color: #0b4a8f; font: 14px system-ui, sans-serif; }
@media (max-width: 700px) {
  body.jp-Notebook { padding: 4px; }
  .jp-Cell { padding: 2px; }
  summary { padding: 0.3em; }
  .jp-InputPrompt, .jp-OutputPrompt, .jp-InputCollapser, .jp-OutputCollapser { display: none; }
  .jp-RenderedHTMLCommon table { display: block; overflow-x: auto; }
  .jp-RenderedText pre { white-space: pre; overflow-x: auto; }
  .highlight { overflow-x: auto; }
}
@media print {
  .jp-Cell, .jp-OutputArea-output pre { overflow: visible; }
  .jp-RenderedImage, h1, h2, h3 { break-inside: avoid; break-after: avoid; }
}
"""


def html(notebook: NotebookNode, title: str) -> str:
    """The notebook as one page, with links to other notebooks and to the reference turned into links to their pages.

    It contains no script: nbconvert's would all be fetched from a network.  Solutions of exercises are folded away.
    """
    page, _ = _Exporter().from_notebook_node(described(notebook), resources={"metadata": {"name": title}})
    soup = BeautifulSoup(page, features="html.parser")
    for script in soup("script"):
        script.decompose()
    for solution in soup(class_="celltag_solution"):
        folded = solution.wrap(soup.new_tag("details"))
        folded.insert(0, soup.new_tag("summary", string="Solution"))
    soup.head.append(soup.new_tag("style", string=STYLE))
    for link in soup("a", href=PAGES):
        link["href"] = PAGES.sub(r"\1.html\2", link["href"])
    return str(soup)


def reference(text: str, title: str) -> str:
    """A page of the reference, Markdown, as one page like those of the notebooks that it lies beside.

    Its headings have the names that they have on GitHub: ``#exl3s-codes``.
    """
    cell = nbformat.v4.new_markdown_cell(text, id="reference")
    soup = BeautifulSoup(html(nbformat.v4.new_notebook(cells=[cell]), title), features="html.parser")
    for heading in soup(re.compile("^h[1-6]$")):
        words = heading.get_text().removesuffix("¶").strip().lower()
        heading["id"] = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        for link in heading("a", class_="anchor-link"):
            link["href"] = f"#{heading['id']}"
    return str(soup)


def described(notebook: NotebookNode) -> NotebookNode:
    """A copy in which every figure carries its description, which nbconvert has no other place for."""
    described = copy.deepcopy(notebook)
    words = iter(descriptions(notebook).values())
    for cell in described.cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                source, alt = (
                    f"data:image/png;base64,{''.join(picture.split())}",
                    entities.escape(next(words)),
                )
                image = f'<div class="jp-RenderedImage"><img src="{source}" alt="{alt}"></div>'
                output.data = nbformat.from_dict({"text/html": image})
    return described


def descriptions(notebook: NotebookNode) -> dict[str, str]:
    """A sentence or two in place of every figure, by the figure's name, for those who do not see it.

    Where the cell has no ``alt`` in its metadata, they are the figure's name, the heading above it and the
    first sentence of the text that says what to see in it.
    """
    return {
        figure.name: notebook.cells[figure.cell].metadata.get("alt") or _description(notebook, figure)
        for figure in notebooks.placed_figures(notebook)
    }


def markdown(source: str, escape: bool = True) -> str:
    """Markdown as HTML, with formulas as MathML.

    Args:
        source: as in a notebook's cell.
        escape: show HTML in it as text; otherwise it is passed on.
    """
    return MarkdownWithMath(renderer=_Renderer(escape=escape, exclude_anchor_links=escape)).render(source)


def plain(source: str) -> str:
    """The words of Markdown, on one line."""
    return " ".join(BeautifulSoup(markdown(source), features="html.parser").get_text().split())


def mathml(tex: str, display: str = "inline") -> str:
    """A formula in MathML; what is no formula stays as it is written, as code.

    Args:
        tex: without the dollar signs.
        display: "inline" or "block".
    """
    try:
        root = convert_to_element(tex, display=display)
    except Exception:  # the converter's errors have no common class, and a page is better than none
        return f"<code>{entities.escape(tex)}</code>"
    for element in root.iter():
        element.text = entities.unescape(element.text) if element.text else element.text
        if element.get("minsize"):  # of \Big( and its like, which browsers only heed in what may stretch
            element.set("stretchy", "true")
        if element.get("mathvariant") == "double-struck":  # browsers only know "normal"
            element.attrib.pop("mathvariant")
            element.text = "".join(map(_double_struck, element.text))
    return ElementTree.tostring(root, encoding="unicode")


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, but for formulas, which it leaves to a script."""

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


class _Exporter(HTMLExporter):
    """nbconvert's exporter, with formulas in MathML."""

    def default_filters(self):
        yield from super().default_filters()
        yield ("markdown2html", lambda source: markdown(source, escape=False))


def _description(notebook: NotebookNode, figure: "notebooks.Figure") -> str:
    """What can be said of a figure from the text around it."""
    before = [c.source for c in notebook.cells[: figure.cell] if c.cell_type == "markdown"]
    after = [c.source for c in notebook.cells[figure.cell + 1 :] if c.cell_type == "markdown"]
    headings = [line for source in before for line in re.findall(r"(?m)^#+ +(.+)$", source)]
    told = [f"Figure “{figure.name.replace('-', ' ')}”"]
    if headings:
        told[0] += f" of section “{plain(headings[-1])}”"
    if after and after[0].startswith("**What to see"):
        told.append(_first_sentence(plain(after[0]).partition(".")[2]))
    return ". ".join(part.strip().removesuffix(".") for part in told) + "."


def _first_sentence(text: str) -> str:
    found = re.match(r".+?[.!?](?=\s|$)", text.strip())
    return found[0] if found else text.strip()


def _double_struck(letter: str) -> str:
    """𝔼 for E."""
    for name in ("DOUBLE-STRUCK CAPITAL", "MATHEMATICAL DOUBLE-STRUCK CAPITAL"):
        try:
            return unicodedata.lookup(f"{name} {letter}")
        except KeyError:
            continue
    return letter
