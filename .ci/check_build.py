"""Check that build/<experiment> holds what the README promises; exit with a sentence where it does not."""

import hashlib
import json
import sys
from pathlib import Path

import pandas as pd

experiment = sys.argv[1]
build = Path("build") / experiment
names = sorted(path.stem for path in Path("params", experiment).glob("*.yaml"))
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

sys.exit("\n".join(faults) or None)
