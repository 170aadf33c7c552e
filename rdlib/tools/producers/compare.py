"""Compare checkpoints that were made again with the committed ones: ``python -m rdlib.tools.producers.compare FOLDER``.

With ``--replace`` those that differ take the place of the committed ones.  What is compared is what a file says, not
its bytes: safetensors writes the entries of its metadata in an order that changes from run to run.
"""

import argparse
import json
import shutil
import struct
import sys
from pathlib import Path

from rdlib.tools.producers.calibration import ASSETS
from rdlib.tools.producers.record import PROVENANCE

COMMITTED = ASSETS / "checkpoints"


def differences(made: Path, committed: Path) -> list[str]:
    """What two folders of a checkpoint do not have in common: files, or parts of files."""
    files, others = ({file.name for file in folder.glob("*")} for folder in (made, committed))
    found = sorted(files ^ others)
    for name in sorted(files & others):
        first, second = content(made / name), content(committed / name)
        found += [f"{name}: {key}" for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    return found


def content(file: Path) -> dict[str, object]:
    """What a file says, by the name of each part; of a tensor its type, shape and bytes."""
    if file.suffix != ".safetensors":
        parts = json.loads(file.read_text(encoding="utf-8"))
        return {key: value for key, value in parts.items() if (file.name, key) != (PROVENANCE, "files")}
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    found: dict[str, object] = {"__metadata__": header.pop("__metadata__", {})}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        found[name] = entry["dtype"], entry["shape"], data[8 + length + start : 8 + length + end]
    return found


def main() -> None:
    """The command line; it fails where something differs and is not replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replace", action="store_true")
    options = parser.parse_args()
    names = {
        path.parent.name for root in (options.folder, COMMITTED) for path in root.glob(f"*/{PROVENANCE}")
    }
    failed = False
    for name in sorted(names):
        found = differences(options.folder / name, COMMITTED / name)
        print(f"{name}: {f'{len(found)} differences, first {found[0]}' if found else 'the same'}")
        if found and options.replace:
            shutil.rmtree(COMMITTED / name, ignore_errors=True)
            shutil.copytree(options.folder / name, COMMITTED / name)
        failed |= bool(found) and not options.replace
    sys.exit(
        "Some checkpoints differ from the committed ones; `make checkpoints REPLACE=yes` puts them in their place."
        if failed
        else None
    )


if __name__ == "__main__":
    main()
