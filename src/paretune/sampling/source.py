"""The source of a sampler's model: a finished run with its methods, or a bare model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..commands.export import open_final
from ..config import ModelConfig, RunConfig
from ..data.prompts import load_prompts
from ..foreign.gguf import is_gguf
from ..inputs.pictures import picture_of
from ..models.detect import EMBEDDED, family_of, settings_of, world_of
from ..models.family import misfit
from ..models.flow import Sampling
from ..planning.methods import build_plan
from ..reward_tokens.files import Token, read_bank
from ..reward_tokens.pipelines import resolve
from ..reward_tokens.spec import parse_tokens
from ..rewards.trust import is_code
from ..samples.media import Medium, medium_of
from ..stages.menu import Menu, Mixed, menus_of, step_of, token_menu
from ..types import ParetuneError, Prompt
from .request import Request

BASE = Mixed((), ())
NO_TOKENS = "{run} has no reward tokens; `paretune tokens {run}` trains them"
TWICE = "rate takes its tokens from the preference or by name (--tokens): give one of them"


@dataclass(frozen=True)
class ModelSource:
    """What a sampler draws from.

    run_folder: the folder of a run, None for a bare model. menus: `mapreduce`, `mix`, `conditioned` and
    `rate`, as far as the run has them. known: the prompts of the run's files, with their records. bank: the
    run's reward tokens by name. trusted: whether rewards that are files or modules may be loaded; otherwise
    they give no scores.
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
        """The rewards of the run that may not be loaded: name -> spec."""
        owned = {} if self.trusted or self.config is None else self.config.rewards
        return {name: r.reward for name, r in owned.items() if is_code(r.reward)}

    @property
    def medium(self) -> Medium:
        """The kind of samples that the model makes."""
        return medium_of(self.model)

    @property
    def sampling(self) -> Sampling:
        """How one sample is drawn. Samples are drawn one at a time."""
        return Sampling(self.steps, self.guidance, batch=1)

    @property
    def world(self) -> str:
        """The embedded world that the model belongs to, or ""."""
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
        """The weights of the recipe."""
        return tuple(self.config.weights().values()) if self.config else ()

    @property
    def takes_picture(self) -> bool:
        """Whether the model works on an input picture."""
        return family_of(self.model.path).picture != "none"

    def check_picture(self, request: Request, how: str = "give one (--image FILE)") -> None:
        """Raise ParetuneError if a request lacks the input picture that it needs, or has one in vain."""
        known = self.known.get(request.prompt)
        image = request.image or (picture_of(known.text) if known else None)
        if not misfit(family_of(self.model.path), image):
            return
        if image:
            raise ParetuneError(f"{self.name} takes no input picture: leave it out")
        raise ParetuneError(f"{self.name} works on an input picture: {how}")

    def mixed(self, request: Request) -> Mixed:
        """The adapters and tokens that make the model of a request.

        Raises ParetuneError if the run does not have what the request asks for.
        """
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
        # The method `rate` consists of tokens, so tokens that are named replace those of a preference.
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
    """Open a run or a model.

    Args:
        target: a run's folder, a model's folder, an embedded model's name or a hub id.
        trust_rewards: whether the code of a run's rewards that are files or modules may be run.
        verify: hash every file of a run.

    Raises:
        ParetuneError: if there is no run and no model.
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
    named = target in EMBEDDED or is_gguf(target)
    if not folder.exists() and not named and target.count("/") != 1:
        raise ParetuneError(f"no run or model {target}; give a run's folder, a model's folder or a hub id")
    model = ModelConfig.model_validate({"path": target, **settings_of(target)})
    steps, guidance = family_of(target).sampling
    # Embedded models were trained without guidance.
    return ModelSource(target, model, steps, 1.0 if target in EMBEDDED else guidance)


def _open_run(run: Path, trusted: bool, verify: bool) -> ModelSource:
    config, final = open_final(run, verify)
    bank = read_bank(final / "tokens")
    settings = config.evaluate
    guidance = config.model.guidance_scale if settings.guidance_scale is None else settings.guidance_scale
    return ModelSource(
        config.name, config.model, settings.steps, guidance, config.executor.device,
        run, config, _menus(config, run) | _tokens(config, bank), _known(config), bank, trusted,
    )  # fmt: skip


def _menus(config: RunConfig, run: Path) -> dict[str, Menu]:
    """The menus of a run.

    mapreduce: the experts of the last round, with its step, on the model of the earlier rounds. mix: the
    experts of a first round, on the base. conditioned: the policy that is given the preference.
    """
    plan = build_plan(config)
    rounds = {method.name: method.rounds for method in plan.methods}
    found: dict[str, Menu] = {}
    if "mapreduce" in rounds:
        last = rounds["mapreduce"][-1]
        folders = tuple(task.folder for task in last.tasks)
        parents = last.tasks[0].parents
        found["mapreduce"] = Menu("mapreduce", parents, folders, step=step_of(last, run))
    experts = rounds.get("rewarded_soup") or rounds.get("mapreduce")
    if experts:
        found["mix"] = Menu("mix", (), tuple(t.folder for t in experts[0].tasks))
    found |= {menu.method: menu for menu in menus_of(plan) if menu.weighted}
    return found


def _tokens(config: RunConfig, bank: Mapping[str, Token]) -> dict[str, Menu]:
    return {"rate": token_menu(tuple(config.rewards))} if bank else {}


def _merged(config: RunConfig) -> Mixed:
    """MapReduce's model at the recipe's weights. It is final/ if MapReduce is the run's first method."""
    method = next(m for m in build_plan(config).methods if m.name == "mapreduce")
    folders = ("final",) if config.methods[0] == "mapreduce" else method.model
    return Mixed(folders, (1.0,) * len(folders))


def _known(config: RunConfig) -> dict[str, Prompt]:
    """The prompts of the run's files, by their texts without surrounding blanks, as a user's text is read.

    If two prompts have the same text, the first is taken. Files that no longer exist are skipped.
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
