"""Which way imports run: a room knows the rooms below it, nothing runs in a circle, and files stay small."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import paretune

ROOT = Path(paretune.__file__).parent
LEAF = {"types", "config", "limits", "inputs"}
FILES = {"files", "records"}
MODELS = FILES | {"ops", "foreign", "adapters", "reward_tokens", "worlds", "models"} | LEAF
MAP = MODELS | {"planning", "rewards", "data", "samples", "training", "recipes"}
STAGES = MAP | {"stages", "executors"}
RUN = STAGES | {"report", "environment", "tracking"}

# room -> the rooms it may import from, lazily too. A new room needs a line here.
MAY: dict[str, set[str]] = {
    "types": set(),
    "limits": set(),
    "inputs": {"types"},
    "yaml_text": set(),
    "ops": {"ops", "foreign"},  # foreign: other packages' reducers
    "files": {"types"},
    "records": FILES | {"types"},
    "foreign": {"types", "foreign", "files"},  # files: what is fetched or converted is written
    "config": {"types", "ops", "limits", "yaml_text", "config"},  # ops: the reducers check their own options
    "recipes": {"files", "yaml_text", "training", "rewards"} | LEAF,  # what checks its own keys
    "environment": FILES | LEAF,
    "worlds": {"worlds"},
    "adapters": FILES | {"ops", "types", "adapters"},
    "reward_tokens": FILES | {"adapters", "types", "reward_tokens"},
    "models": MODELS,  # worlds: which models are embedded
    "rewards": {"ops", "foreign", "rewards", "worlds", "files"} | LEAF,  # files: what a judge answered
    "data": {"ops", "data", "worlds", "files", "foreign"} | LEAF,
    "samples": MODELS | {"samples"},
    "planning": MODELS | {"samples", "data", "training", "planning"},  # training: the costs of objectives
    "training": MAP,
    "executors": {"environment", "executors", "foreign", "files"} | LEAF,  # files: what comes back is written
    "stages": STAGES | {"environment"},  # each machine compares its base model
    "report": FILES | {"ops", "types", "report"},
    "tracking": FILES | {"tracking"} | LEAF,  # what workers report, and files that they wrote
    "run": RUN,
    "commands": RUN | {"run", "commands", "yaml_text"},  # yaml_text: a recipe to edit is written
    "sampling": RUN | {"commands", "sampling"},
    "demo": FILES | {"sampling", "data", "rewards", "demo"} | LEAF,
    "cli": RUN | {"run", "commands", "sampling", "demo", "cli"},
    "__main__": {"cli"},
}
HEAVY = {"diffusers", "transformers", "peft", "trl", "datasets"}
OPTIONAL = {"rapidocr_onnxruntime", "torchao", "av", "gradio", "fastapi", "uvicorn", "starlette", "ray",
            "wandb", "swanlab", "trackio", "mlflow"}  # fmt: skip


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
    """Every import of a file; `from . import a` and `from .b import a` both count as paretune.…."""
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
            names = [f"{module}.{alias.name}" for alias in node.names]
        yield from (Import(file, name, id(node) in inner) for name in names)


def fault(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    where = f"{found.file} imports {found.name}"
    if found.top in OPTIONAL and not found.lazy and found.room != "demo":
        return f"{where} outside a function: it is optional"
    lazy = found.room in {"rewards", "data", "planning", "adapters", "foreign"} and found.lazy
    leaf = found.room in {"models", "reward_tokens"} or found.file.startswith("training/language/") or lazy
    if found.top in HEAVY and not leaf:
        return f"{where}: only models, reward tokens, TRL's trainers, and some rooms inside functions"
    if not found.target or found.target == "__version__":
        return None
    if found.room not in MAY:
        return f"{found.file}: the room {found.room} has no line in MAY"
    return None if found.target in MAY[found.room] else f"{where}: {found.room} may not know {found.target}"


def faults_of(source: str, file: str) -> list[str]:
    return [told for found in imports_of(source, file) if (told := fault(found))]


@cache
def sources() -> dict[str, str]:
    """Every file of the package, by its path below it."""
    return {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted(ROOT.rglob("*.py"))}


def test_imports_run_one_way() -> None:
    assert len(sources()) > 100
    told = [f for file, source in sources().items() if file != "__init__.py" for f in faults_of(source, file)]
    assert told == []


def test_nothing_runs_in_a_circle() -> None:
    """Module by module, imports inside functions counted."""
    modules = {f"paretune.{file.removesuffix('.py').replace('/', '.')}": file for file in sources()}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        found = [found.name for found in imports_of(sources()[file], file)]
        known = {n if n in modules else n.rpartition(".")[0] for n in found}
        graph[name] = {n for n in known if n in modules and n != name}
    # What is left after everything without open imports is taken away, again and again, is circles.
    while free := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in free}
    assert graph == {}


def test_the_top_level_and_the_files_are_small() -> None:
    """run.py and what everything knows lie at the top; __init__ and __main__ are not counted."""
    top = [file for file in sources() if "/" not in file and not file.startswith("__")]
    assert len(top) <= 8, top
    long = {file: n for file, text in sources().items() if (n := text.count("\n")) > 350}
    assert long == {}
    functions = {
        f"{file} {node.name}": size
        for file, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > 60
    }
    assert functions == {}


def test_only_its_own_folder_names_a_family() -> None:
    """Outside models/ and worlds/ no code spells a family's name; docstrings may.

    In adapters/ the names are those of published files: how other tools call the modules of a family.
    """
    from paretune.models.family import families

    names = {*families()} | {"hunyuan"}
    for file, source in sources().items():
        if file.split("/")[0] in {"models", "worlds", "adapters"}:
            continue
        tree = ast.parse(source)
        words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        told = [word for word in words if word in names]
        assert told == [], file


def test_a_wrong_import_is_seen() -> None:
    """Each line is a fault in that file, and the indented ones are none."""
    lazily = "def f():\n    "
    wrong = {
        "ops/lowrank.py": "from ..types import Prompt",
        "rewards/ocr.py": "from paretune.data.prompts import load_prompts",
        "rewards/base.py": "from ..models import sd3",
        "adapters/merge.py": "from ..stages.map import MapJob",
        "executors/local.py": "from ..stages.map import train_expert",
        "report/page.py": "from ..run import run",
        "training/expert.py": "import diffusers.models",
        "training/trainers.py": "import trl",
        "data/hub.py": "import datasets",
        "rewards/vqa.py": "import rapidocr_onnxruntime",
        "rewards/pickscore.py": "from transformers import CLIPModel",
        "stages/evaluate.py": lazily + "import peft",
        "run.py": "from .cli import app",
        "brandnew.py": "from .types import Prompt",
    }
    assert [len(faults_of(source, file)) for file, source in wrong.items()] == [1] * len(wrong)
    assert faults_of(lazily + "from paretune import worlds", "data/prompts.py") == []
    assert faults_of(lazily + "import rapidocr_onnxruntime", "rewards/vqa.py") == []
    assert faults_of(lazily + "from transformers import CLIPModel", "rewards/pickscore.py") == []
    assert len(faults_of(lazily + "from ..models import sd3", "rewards/base.py")) == 1
