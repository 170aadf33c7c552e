"""The files of the package, and how a file is written whole or not at all."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
