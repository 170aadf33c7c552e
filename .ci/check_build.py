"""Check that build/<experiment> holds what the README promises; exit with a sentence where it does not."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pandas as pd

from rdlib.runs.experiment import plan
from rdlib.runs.report import render

experiment = sys.argv[1]
build = Path("build") / experiment
names = [step.name for step in plan(Path(), experiment)]
manifest = json.loads((build / "manifest.json").read_text())
hashes = dict(manifest["files"])
for name in names:
    hashes |= manifest["notebooks"][name]["files"]

faults = [
    f"{name} has no {kind}" for name in names for kind in ("ipynb", "html") if f"{name}.{kind}" not in hashes
]
faults += [
    f"{name} has no figure" for name in names if not any(f.startswith(f"figures/{name}-") for f in hashes)
]
for name, sha in hashes.items():
    if hashlib.sha256((build / name).read_bytes()).hexdigest() != sha:
        faults.append(f"{name} is not what the manifest says")

table = pd.read_parquet(build / "results.parquet")
if table.empty or len(table) != len(pd.read_csv(build / "results.csv")):
    faults.append("results.csv and results.parquet do not hold the same points, or none")

loads = re.compile(
    r"""(<(?:script|img|iframe|link)\b[^>]*\s(?:src|href)=["']?(?!data:)[^"'> ]+|@import[^;]*)""", re.I
)
site = [*build.glob("explorer.html"), *build.glob("slides.html"), *build.glob("real-*.html")]
for path in [build / "index.html", *(build / f"{name}.html" for name in names), *site]:
    found = loads.search(path.read_text()) if path.is_file() else None
    if not path.is_file() or found:
        faults.append(f"{path} {f'loads {found[1][:100]}' if found else 'is missing'}")
index = build / "index.html"
if index.is_file() and index.read_text() != render(build):
    faults.append("index.html is not what its folder says")

sys.exit("\n".join(faults) or None)
