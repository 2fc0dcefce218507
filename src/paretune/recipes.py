"""Find a recipe: a file, or the name of one that ships with paretune."""

from __future__ import annotations

from pathlib import Path

from .types import ParetuneError


def shipped_recipes() -> dict[str, Path]:
    """Name -> file. In a wheel they lie inside the package, in a clone beside `src`."""
    here = Path(__file__).parent
    folders = (here / "recipes", here.parent.parent / "recipes")
    return {p.stem: p for folder in folders for p in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file that `name` means. Raises ParetuneError naming the recipes there are."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.stem in shipped and path.parent.name in {"", "recipes"}:
        return shipped[path.stem]
    raise ParetuneError(f"no recipe {name}; give a YAML file or one of: {', '.join(shipped)}")
