"""Where a sampler's model comes from: a finished run with its methods, or a bare model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..commands.export import open_final
from ..config import ModelConfig, RunConfig
from ..data.prompts import load_prompts
from ..models.detect import EMBEDDED, family_of, settings_of, world_of
from ..models.flow import Sampling
from ..planning.methods import build_plan
from ..reward_tokens.files import Token, read_bank
from ..reward_tokens.pipelines import resolve
from ..reward_tokens.spec import parse_tokens
from ..rewards.trust import is_code
from ..samples.media import Medium, medium_of
from ..stages.menu import Menu, Mixed, token_menu
from ..types import ParetuneError, Prompt
from .request import Request

BASE = Mixed((), ())
NO_TOKENS = "{run} has no reward tokens; `paretune tokens {run}` trains them"
TWICE = "rate takes its tokens from the preference or by name (--tokens): give one of them"


@dataclass(frozen=True)
class ModelSource:
    """run: its folder, None for a bare model. known: the prompts of the run's files, with their records.

    families: `mapreduce`, `mix` and `rate`, each where the run has it. bank: its reward tokens by name.
    trusted: whether rewards that are files or modules are loaded; else they score nothing.
    """

    name: str
    model: ModelConfig
    steps: int
    guidance: float
    device: str = "auto"
    run_folder: Path | None = None
    config: RunConfig | None = None
    menus: Mapping[str, Menu] = field(default_factory=dict[str, Menu])
    known: Mapping[str, Prompt] = field(default_factory=dict[str, Prompt])
    bank: Mapping[str, Token] = field(default_factory=dict[str, Token])
    trusted: bool = False

    @property
    def unscored(self) -> dict[str, str]:
        """The rewards of the run that are not loaded: their specs by their names."""
        owned = {} if self.trusted or self.config is None else self.config.rewards
        return {name: r.reward for name, r in owned.items() if is_code(r.reward)}

    @property
    def medium(self) -> Medium:
        """What the model makes."""
        return medium_of(self.model)

    @property
    def sampling(self) -> Sampling:
        """How one sample is drawn, alone."""
        return Sampling(self.steps, self.guidance, batch=1)

    @property
    def world(self) -> str:
        """The embedded world that the model is of, or ""."""
        return world_of(self.model.path)

    @property
    def rewards(self) -> tuple[str, ...]:
        """The run's rewards, in its order."""
        return tuple(self.config.rewards) if self.config else ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that can be asked for."""
        return (*self.menus, "base")

    @property
    def default_preference(self) -> tuple[float, ...]:
        """The recipe's own weights."""
        return tuple(self.config.weights().values()) if self.config else ()

    def mixed(self, request: Request) -> Mixed:
        """The adapters and tokens over the base that make what a request asks for, all of them known."""
        if request.method == "rate" and request.preference is not None and request.tokens:
            raise ParetuneError(TWICE)
        mixed = self._member(request.method, request.preference)
        if not request.tokens:
            return mixed
        if self.run_folder is None:
            raise ParetuneError(f"{self.name} is a model, not a run: it has no reward tokens")
        if not self.bank:
            raise ParetuneError(NO_TOKENS.format(run=self.run_folder))
        uses = parse_tokens(request.tokens)
        resolve(uses, self.bank)
        # rate is its tokens: those named by hand stand in for those of the preference.
        return replace(mixed, tokens=uses if request.method == "rate" else mixed.tokens + uses)

    def _member(self, method: str, preference: tuple[float, ...] | None) -> Mixed:
        if method == "base":
            if preference is not None:
                raise ParetuneError("the base has no preference; give another method, or no preference")
            return BASE
        if self.run_folder is None:
            raise ParetuneError(f"{self.name} is a model, not a run: it has only the method base")
        if method == "rate" and not self.bank:
            raise ParetuneError(NO_TOKENS.format(run=self.run_folder))
        if method not in self.menus:
            known = ", ".join(self.methods)
            raise ParetuneError(f"{self.run_folder} has no experts for {method}; it has {known}")
        if method == "mapreduce" and preference is None and self.config is not None:
            return _merged(self.config)
        return self.menus[method].at(preference or self.default_preference)


def open_source(target: str, trust_rewards: bool = False, verify: bool = False) -> ModelSource:
    """A run's folder, a model's folder, an embedded model's name or a hub id.

    trust_rewards: whether a run's rewards that are files or modules may be run. verify: hash all of a run.
    """
    folder = Path(target)
    try:
        is_run = (folder / "config.yaml").exists()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ParetuneError(f"no run or model can be at {target}: {error.strerror}") from error
    if is_run:
        return _open_run(folder, trust_rewards, verify)
    indices = ("model_index.json", "config.json")
    if folder.is_dir() and not any((folder / name).exists() for name in indices):
        raise ParetuneError(
            f"{target} holds neither a run (config.yaml) nor a model (model_index.json)"
        )
    if not folder.exists() and target not in EMBEDDED and target.count("/") != 1:
        raise ParetuneError(f"no run or model {target}; give a run's folder, a model's folder or a hub id")
    model = ModelConfig.model_validate({"path": target, **settings_of(target)})
    steps, guidance = family_of(target).sampling
    # Embedded models were made without guidance.
    return ModelSource(target, model, steps, 1.0 if target in EMBEDDED else guidance)


def _open_run(run: Path, trusted: bool, verify: bool) -> ModelSource:
    config, final = open_final(run, verify)
    bank = read_bank(final / "tokens")
    settings = config.evaluate
    guidance = config.model.guidance_scale if settings.guidance_scale is None else settings.guidance_scale
    return ModelSource(
        config.name, config.model, settings.steps, guidance, config.executor.device,
        run, config, _menus(config) | _tokens(config, bank), _known(config), bank, trusted,
    )  # fmt: skip


def _menus(config: RunConfig) -> dict[str, Menu]:
    """mapreduce: the last round's experts on the rounds before. mix: one round's experts on the base."""
    rounds = {method.name: method.rounds for method in build_plan(config).methods}
    found: dict[str, Menu] = {}
    if "mapreduce" in rounds:
        last = rounds["mapreduce"][-1].tasks
        found["mapreduce"] = Menu("mapreduce", last[0].parents, tuple(t.folder for t in last))
    experts = rounds.get("rewarded_soup") or rounds.get("mapreduce")
    if experts:
        found["mix"] = Menu("mix", (), tuple(t.folder for t in experts[0].tasks))
    return found


def _tokens(config: RunConfig, bank: Mapping[str, Token]) -> dict[str, Menu]:
    return {"rate": token_menu(tuple(config.rewards))} if bank else {}


def _merged(config: RunConfig) -> Mixed:
    """MapReduce's own model: final/ where it is the run's first method."""
    method = next(m for m in build_plan(config).methods if m.name == "mapreduce")
    folders = ("final",) if config.methods[0] == "mapreduce" else method.model
    return Mixed(folders, (1.0,) * len(folders))


def _known(config: RunConfig) -> dict[str, Prompt]:
    """Every prompt of the run's files, by its text without blanks around it, as a user's is read.

    Of one that comes twice the first. Lost files are passed over.
    """
    known: dict[str, Prompt] = {}
    for reward_config in config.rewards.values():
        for file in (reward_config.eval_prompts, reward_config.prompts):
            try:
                prompts = load_prompts(file)
            except ParetuneError:
                continue
            for prompt in prompts:
                known.setdefault(prompt.text.strip(), prompt)
    return known
