"""The rule by which `paretune advise` chooses a form, and the keys of the recipe that make it.

Its bounds are rules of thumb.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import RunConfig
from ..ops.distilling import DISTIL
from ..recipes import parse_config
from ..training.checks import check_training
from ..training.trainers import why_not_lean
from ..types import ParetuneError

# A correlation of AGREE or more agrees; a correlation or a cosine of OPPOSE or less opposes.
AGREE, OPPOSE = 0.3, -0.1
SATURATED = 0.8  # the share of the way to a reward's best value after which little is left to learn
Settings = dict[str, Any]  # "section.key" -> value, for --set


@dataclass(frozen=True)
class Evidence:
    """What the pilot measured.

    agreement: correlations of all pairs of rewards that could be measured. cosines: of all pairs of experts.
    taxes: "EXPERT lowers REWARD by x", where the change exceeds two standard errors. reached: reward -> the
    share of the way from the base to its best value that its own expert went; without unbounded rewards.
    """

    agreement: list[float]
    cosines: list[float]
    taxes: list[str]
    reached: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """name: soup, distil, lean, or mapreduce. set: keys of the recipe. why: the evidence, in sentences.

    beside: what else to measure, in a sentence; "" where the recipe cannot.
    """

    name: str
    set: Settings
    why: list[str]
    beside: str = ""


def choose(config: RunConfig, found: Evidence) -> Choice:
    """The rule.

    - Experts that saturate within the pilot: distil, which keeps in one student what an average would weaken.
      Not where two rewards score the same prompts and oppose: the student asks one expert a prompt.
    - Rewards that agree everywhere, and experts that do not oppose: a soup, as each expert helps the others.
    - Otherwise: MapReduce whose experts lean on the other rewards, with more, shorter and longer steps. A
      recipe that leans already keeps its own settings.

    Adapters that start at random and train shortly have cosines near 0, so only negative ones tell something.
    A form that the recipe does not allow is passed over. All forms draw as many samples as the recipe asks
    for.
    """
    least = {"agreement of the rewards": found.agreement, "cosine of the experts": found.cosines}
    facts = [f"the least {what} is {min(values):+.2f}" for what, values in least.items() if values]
    if not found.agreement:
        facts.append("no two rewards score the same prompts with differences")
    facts += found.taxes or ["no expert worsens another reward by more than two standard errors"]
    refused = list[str]()
    for name, settings, why in _wanted(config, found):
        complaint = refusal(config, settings)
        if complaint is None:
            return Choice(name, settings, [*why, *refused, *facts], _beside(config))
        refused.append(f"the form {name} is passed over: {complaint}")
    return Choice("mapreduce", {"methods": ["mapreduce"]}, [*refused, *facts], _beside(config))


def _beside(config: RunConfig) -> str:
    """Joint training, of which no figure of a pilot tells whether it would do better."""
    if refusal(config, {"methods": ["morl_dr"]}) is not None:
        return ""
    return (
        "no figure of a pilot tells whether one policy trained on all rewards would do better: of three "
        "worlds it was ahead on pictures and on clips, and behind on answers. Where devices can "
        "exchange a gradient at every update, measure it too: the same recipe with --set 'methods=[morl_dr]'"
    )


def _wanted(config: RunConfig, found: Evidence) -> list[tuple[str, Settings, list[str]]]:
    """Names, settings and reasons of the forms, the best one first."""
    worst = min([*found.agreement, *found.cosines], default=0.0)
    least = min((found.reached.get(name, 0.0) for name in config.rewards), default=0.0)
    forms: list[tuple[str, Settings, list[str]]] = []
    if least > SATURATED and min(found.agreement, default=1.0) > OPPOSE:
        why = f"every expert went {least:.0%} or more of the way to its best value"
        forms.append(("distil", _distilled(config), [why]))
    agree = bool(found.agreement) and min(found.agreement) >= AGREE
    if agree and worst > OPPOSE and not found.taxes:
        forms.append(("soup", {"methods": ["rewarded_soup"]}, []))
    why = "the experts change different things, and an average weakens each of them"
    if worst <= OPPOSE or found.taxes:
        why = "the rewards conflict: experts that see the other rewards stop undoing each other"
    if any(map(config.lean, config.rewards)):
        own = ["the recipe leans already, so its own lean, steps and rounds stay"]
        forms.append(("lean", {"methods": ["mapreduce"]}, [why, *own]))
    else:
        forms.append(("lean", _leaning(config), [why]))
    return forms


def _distilled(config: RunConfig) -> Settings:
    """One round of experts that do not lean, each with all its epochs, and one student."""
    once = {"reduce.method": "distil", "reduce.options": {}, "reduce.step": 1, "reduce.momentum": 0}
    return {"methods": ["mapreduce"], "map.lean": 0, **_lean_of_all(config), **_rounds(config, 1), **once}


def _leaning(config: RunConfig) -> Settings:
    """Twice as many rounds of half the epochs where all epochs are even, and steps of twice the average.

    Where all weights are trained there is no step: experts lean, and the rounds stay.
    """
    if config.lora is None:
        return {"methods": ["mapreduce"], "map.lean": 0.5, **_lean_of_all(config)}
    doubled = 2 * config.rounds
    even = all(epochs % 2 == 0 for epochs in _epochs(config).values())
    plain: Settings = {"reduce.momentum": 0} if config.reduce.momentum else {}
    # What these make is no average to go beyond, or goes beyond it already; `options.q: search` has chosen
    # its steps.
    chosen = config.reduce.method == "dare-q" and not isinstance(config.reduce.step, int | float)
    if config.reduce.method in (DISTIL, "search", "nesterov", "slerp") or chosen:
        cut = config.reduce.rank is not None or config.reduce.energy is not None
        plain |= {"reduce.method": "compressed" if cut else "exact", "reduce.options": {}}
    settings = {"methods": ["mapreduce"], "map.lean": 0.5, **_lean_of_all(config), "reduce.step": 2, **plain}
    longer = {**settings, **_rounds(config, doubled)}
    return longer if even and refusal(config, longer) is None else settings


def _lean_of_all(config: RunConfig) -> Settings:
    """A reward's own lean would stay where `map.lean` changes.

    An expert of weight 0, or with an objective or pairs of its own that know one reward, leans by 0 alone.
    """
    wanted = {
        name: 0.0 if not own.weight or ((own.objective or own.pairs) and why_not_lean(config, name)) else None
        for name, own in config.rewards.items()
    }
    return {f"rewards.{n}.lean": lean for n, lean in wanted.items() if lean != config.rewards[n].lean}


def _rounds(config: RunConfig, rounds: int) -> Settings:
    """Another number of rounds with as many epochs in all."""
    if rounds == config.rounds:
        return {}
    changed = {key: epochs * config.rounds // rounds for key, epochs in _epochs(config).items()}
    return {"rounds": rounds, **changed}


def _epochs(config: RunConfig) -> dict[str, int]:
    own = {f"rewards.{name}.epochs": reward.epochs for name, reward in config.rewards.items()}
    return {"train.epochs": config.train.epochs} | {key: n for key, n in own.items() if n is not None}


def refusal(config: RunConfig, settings: Mapping[str, Any]) -> str | None:
    """Why a recipe with these settings would be refused, or None."""
    try:
        check_training(parse_config(with_settings(config, settings), "the choice"))
    except ParetuneError as error:
        return str(error)
    return None


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as plain data, with some keys of its sections changed."""
    raw = config.model_dump(mode="json")
    for key, value in settings.items():
        *sections, leaf = key.split(".")
        if sections[:1] == ["rewards"]:  # whose name may have dots
            sections = ["rewards", ".".join(sections[1:])]
        place = raw
        for section in sections:
            place = place[section]
        place[leaf] = value
    return raw
