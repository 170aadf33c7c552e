"""The notebooks as a folder of one's own: those of a checkout, or a copy of those in the package."""

import shutil
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
COURSE = PACKAGE / "course"  # in the wheel: setup.py copies notebooks and params there
FIRST = Path("notebooks") / "index.ipynb"  # that opens


def unpack(folder: Path) -> list[Path]:
    """Copy the notebooks and their parameters into a folder, but no file that is already there.

    Returns:
        The files that were copied.
    """
    source = COURSE if COURSE.is_dir() else PACKAGE.parent
    files = (file for name in ("notebooks", "params") for file in sorted((source / name).rglob("*")))
    copied = []
    for file in files:
        place = folder / file.relative_to(source)
        if file.is_file() and not place.exists() and ".ipynb_checkpoints" not in file.parts:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
            copied.append(place)
    return copied
