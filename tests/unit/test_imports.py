"""Which way imports run: a room knows the rooms below it, and heavy libraries stay in the leaves."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paretune

ROOT = Path(paretune.__file__).parent
LEAF = {"types", "config", "foreign", "limits"}
RECORDS = {"files", "records", "seal"}
MAP = RECORDS | {"ops", "types", "config", "plan", "chat", "policies", "rewards", "data", "training"}
STAGES = MAP | {"stages", "executors", "budget"}

# room -> the rooms it may import from. A new room needs a line here.
MAY: dict[str, set[str]] = {
    "types": set(),
    "chat": {"types"},
    "long_prompts": {"policies", "data"} | LEAF,
    "ops": {"ops"},
    "files": {"types"},
    "records": {"files", "types"},
    "seal": {"files", "types"},
    "foreign": {"types"},
    "limits": set(),
    "yaml_text": set(),
    "config": {"types", "ops", "limits", "yaml_text"},  # ops: the reducers check their own options
    "plan": {"types", "config"},
    "budget": {"plan", "ops", "data"} | LEAF,
    "methods": {"plan", "budget", "config"},
    "worlds": {"worlds"},
    "policies": {"ops", "files", "chat", "policies", "worlds"} | LEAF,  # worlds: which models are embedded
    "rewards": {"ops", "chat", "rewards"} | LEAF,
    "data": {"ops", "data"} | LEAF,
    "training": MAP | {"recipes"},
    "executors": {"types", "config", "environment", "executors"},
    "stages": STAGES,
    "run": STAGES | {"methods", "environment", "folder", "long_prompts"},
    "folder": {"plan", "budget", "files", "policies", "rewards", "data", "training", "recipes"}
    | {"prompt_checks"} | LEAF,
    "prompt_checks": {"rewards", "data", "training"} | LEAF,
    "environment": {"files"} | LEAF,
    "recipes": {"yaml_text", "training"} | LEAF,  # training: objectives check their own options
    "results": set(),
    "progress": {"results"},
    "estimate": {"plan", "policies", "training"} | LEAF,
    "peak": {"policies"} | LEAF,
    "tables": {"plan", "estimate", "training"} | LEAF,
    "doctor": {"environment", "policies"} | LEAF,
    "measure": STAGES | {"environment", "folder"},
    "merge_search": STAGES | {"environment", "folder", "limits"},
    "exporting": STAGES | {"recipes"},
    "sampling": STAGES | {"methods", "environment", "exporting", "long_prompts", "sampling"},
    "demo": {"sampling", "data", "rewards", "files", "records", "demo"} | LEAF,
    "add_tokens": STAGES | {"run", "recipes", "folder"},
    "cli": {"cli_adapters", "cli_models", "config", "progress", "recipes", "results", "types"},
    "cli_adapters": {"types"},
    "cli_models": {"results", "types"},
}
# Inside functions only.
MAY_LAZILY: dict[str, set[str]] = {
    "rewards": {"worlds"},
    "data": {"worlds"},
    "sampling": {"worlds"},
    "cli": set(MAY) - {"cli"},
    "cli_adapters": STAGES | {"merge_search", "recipes", "progress"},
    "cli_models": {"sampling", "demo", "exporting", "tables"},
}
HEAVY = {"diffusers", "transformers", "peft", "trl", "datasets"}


@dataclass(frozen=True)
class Import:
    """file imports the module `name` (dotted); lazy: inside a function."""

    file: str
    name: str
    lazy: bool

    @property
    def room(self) -> str:
        """The room of the importing file."""
        return self.file.split("/")[0].removesuffix(".py")

    @property
    def top(self) -> str:
        """The imported library, or paretune."""
        return self.name.split(".")[0]

    @property
    def target(self) -> str:
        """The imported room, "" where it is the package itself or no room of ours."""
        return self.name.split(".")[1] if self.name.startswith("paretune.") else ""


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a file; `from . import a` counts as paretune.….a."""
    tree = ast.parse(source)
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    package = ["paretune", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            whole = module == "paretune" or not node.module
            names = [f"{module}.{alias.name}" for alias in node.names] if whole else [module]
        yield from (Import(file, name, id(node) in inner) for name in names)


def fault(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    where = f"{found.file} imports {found.name}"
    building = found.file.startswith("worlds/") and "/build/" in found.file
    if found.top == "rapidocr_onnxruntime" and not found.lazy:
        return f"{where} outside a function: it is optional"
    lazy = found.room in {"rewards", "data"} and found.lazy
    leaf = found.room == "policies" or found.file.startswith("training/language/") or building or lazy
    if found.top in HEAVY and not leaf:
        return f"{where}: only policies, TRL's trainers, worlds' scripts, rewards and data inside functions"
    if not found.target:
        return None
    if building:
        runs = found.target in {"cli", "run"}
        return f"{where}: a script that builds a world runs no runs" if runs else None
    if found.room not in MAY:
        return f"{found.file}: the room {found.room} has no line in MAY"
    allowed = MAY[found.room] | (MAY_LAZILY.get(found.room, set()) if found.lazy else set())
    return None if found.target in allowed else f"{where}: {found.room} may not know {found.target}"


def faults_of(source: str, file: str) -> list[str]:
    return [told for found in imports_of(source, file) if (told := fault(found))]


def test_imports_run_one_way() -> None:
    files = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")
    assert len(files) > 40
    assert [f for p in files for f in faults_of(p.read_text(), p.relative_to(ROOT).as_posix())] == []


def test_a_wrong_import_is_seen() -> None:
    """Each line is a fault in that file, and the indented ones are none."""
    lazily = "def f():\n    "
    wrong = {
        "ops/lowrank.py": "from ..types import Prompt",
        "rewards/ocr.py": "from paretune.data.prompts import load_prompts",
        "data/prompts.py": "from paretune import worlds",
        "rewards/base.py": "from ..policies import sd3",
        "executors/local.py": "from ..files import digest",
        "stages/report/page.py": "from ...run import run",
        "training/expert.py": "import diffusers.models",
        "training/trainers.py": "import trl",
        "data/hub.py": "import datasets",
        "rewards/vqa.py": "import rapidocr_onnxruntime",
        "rewards/pickscore.py": "from transformers import CLIPModel",
        "stages/evaluate.py": lazily + "import peft",
        "run.py": "from . import cli",
        "brandnew.py": "from .types import Prompt",
        "worlds/pictures/build/train.py": "import paretune.run",
    }
    assert [len(faults_of(source, file)) for file, source in wrong.items()] == [1] * len(wrong)
    assert faults_of(lazily + "from paretune import worlds", "data/prompts.py") == []
    assert faults_of(lazily + "import rapidocr_onnxruntime", "rewards/vqa.py") == []
    assert faults_of(lazily + "from transformers import CLIPModel", "rewards/pickscore.py") == []
    assert len(faults_of(lazily + "from ..policies import sd3", "rewards/base.py")) == 1
