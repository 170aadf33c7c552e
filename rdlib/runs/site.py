"""A site: the folder of a finished run, with pages beside its own that any web server, or a mail, can carry.

Slides, results on real models that the package keeps, and audits; the front page links what is there.
"""

from pathlib import Path

import pandas as pd

from rdlib.files import write_whole
from rdlib.runs import page, report, slides
from rdlib.runs.findings import findings
from rdlib.runs.kept import KEPT, all_points, kept_manifest


def write(root: Path, build: Path) -> Path:
    """Add the pages of a site to the folder of a finished run, and write its front page again.

    Args:
        root: of the project.
        build: folder of the run.

    Returns:
        The front page.

    Raises:
        FileNotFoundError: the run has not finished.
    """
    refuse_unfinished(build)
    for experiment in sorted(folder.name for folder in KEPT.glob("*")):
        write_whole(build / f"real-{experiment}.html", real(experiment))
    for card in sorted((root / "notebooks" / "reference" / "audit").glob("*.md")):
        name = f"audit-{card.stem}"
        write_whole(build / f"{name}.svg", card.with_suffix(".svg").read_bytes())
        text = f"[← front page](index.html)\n\n{card.read_text(encoding='utf-8')}".replace(
            f"({card.stem}.svg)", f"({name}.svg)"
        )
        write_whole(build / f"{name}.html", page.reference(text, name))
    slides.write(build)
    return report.write(build)


def refuse_unfinished(build: Path) -> None:
    """Raise FileNotFoundError where a folder holds no run that has come to its end."""
    if not (build / "manifest.json").is_file():
        raise FileNotFoundError(f"{build} holds no finished run; run the experiment first.")


def real(experiment: str) -> str:
    """The page of the results on a real model that are kept: every point, where it comes from, and what it took."""
    manifest = kept_manifest(experiment)
    tables = {name: KEPT / experiment / f"{name}.parquet" for name in manifest["notebooks"]}
    points = all_points({name: pd.read_parquet(file) for name, file in tables.items() if file.is_file()})
    columns, rows = report.point_records(points)
    model = next(iter(manifest["notebooks"].values()))["parameters"]["model"]
    return report.TEMPLATES.get_template("real.html.j2").render(
        title=f"{experiment} · rdlib",
        model=report.NAMES.get(model, model),
        manifest=manifest,
        findings=findings(report.tables_in(KEPT / experiment)),
        columns=columns,
        rows=rows,
    )
