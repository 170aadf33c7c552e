"""Audits that the package keeps, for pages that quote them without a run, and their cards in the reference.

python -m rdlib.audit.kept build/audit smollm2-135m      # keep what an audit found (make cards)
"""

import argparse
from pathlib import Path

import pandas as pd

from rdlib.audit.page import common
from rdlib.files import ASSETS, write_whole

KEPT = ASSETS / "audits"
CARDS = ASSETS.parents[1] / "notebooks" / "reference" / "audit"


def keep(out: Path, name: str, folder: Path = KEPT, cards: Path = CARDS) -> None:
    """Keep the rows of an audit's files, by short names, and the limit of the model; and the card with its drawing.

    Args:
        out: folder of the audit.
        name: of the model.
        folder: for the tables, in a folder of that name.
        cards: folder for the card and the drawing.
    """
    frame = pd.read_parquet(out / "audit.parquet")
    files = frame[(frame.name == "") & (frame.group == "all")]
    files = files.assign(file=files.file.str.removeprefix(common(list(files.file))))
    write_whole(folder / name / "files.parquet", files.to_parquet(index=False))
    write_whole(folder / name / "limit.parquet", (out / "limit.parquet").read_bytes())
    card, _, _ = (out / "audit.md").read_text(encoding="utf-8").rpartition("Made by ")
    write_whole(
        cards / f"{name}.md", card.replace("(audit.svg)", f"({name}.svg)") + "Made by `make cards`.\n"
    )
    write_whole(cards / f"{name}.svg", (out / "audit.svg").read_bytes())


def kept_audit(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of files, and points of the limit of the model, as :func:`rdlib.audit.figure.planes` takes them.

    Raises:
        ValueError: there is no such audit.
    """
    if not (KEPT / name).is_dir():
        known = ", ".join(sorted(folder.name for folder in KEPT.glob("*")))
        raise ValueError(f"No audit of {name} is kept: {known or 'none is'}.")
    return tuple(pd.read_parquet(KEPT / name / f"{table}.parquet") for table in ("files", "limit"))


def main() -> None:
    """Keep an audit in the package, and its card in the reference."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder of an audit, like build/audit")
    parser.add_argument("name", help="of the model, like smollm2-135m")
    given = parser.parse_args()
    keep(given.out, given.name)
    print(f"Kept in {KEPT / given.name}; the card is {CARDS / given.name}.md.")


if __name__ == "__main__":
    main()
