"""The options of `paretune pairs` for a language model, and their checks before anything is loaded."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields
from pathlib import Path

from ...config import RunConfig
from ...data.answer_forms import BY_THRESHOLD, FORMS, STEPS
from ...data.answer_lists import WINS
from ...files import check_new
from ...types import ParetuneError
from ..make_pairs import Drawing

KNOWN = (*FORMS, STEPS, WINS)
BY_WINS = " with objective.options.score: wins"
LADDERS = ("score", "reference")
GREATEST = 1000.0  # --guide-beta


@dataclass(frozen=True)
class AnswerOptions:
    """Options for answers; each stands for the command's option of that name.

    answers: a file of answers by other models. threshold: the least score of a right or a safe answer, of a
    cost the greatest.
    safety_prompt: words before a prompt, with which the model answers it again, safely. judge: the reward
    that judges steps, or of the recipe `through` the one that orders. rollouts: answers drawn from a prefix.
    step_mark: what ends a step. contrast: adapters of right and of wrong answers. guide: an adapter, whose
    log-ratio times guide_beta is written. embed: a text encoder for drift. steps_like_best: write weights of
    steps. through: a recipe of pictures that scores rewritten prompts. ladder_by: what orders a ladder's
    stages, the gap of "score" or of the "reference"'s log-probabilities.
    """

    answers: Path | None = None
    threshold: float = 0.5
    safety_prompt: str = ""
    judge: str = ""
    rollouts: int = 4
    step_mark: str = "\n"
    contrast: tuple[str, str] | None = None
    guide: str | None = None
    guide_beta: float = 0.1
    embed: str | None = None
    steps_like_best: bool = False
    through: RunConfig | None = None
    ladder_by: str = "score"

    def given(self) -> list[str]:
        """The command's options that differ from their defaults."""
        plain = AnswerOptions()
        names = [f.name for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)]
        return [f"--{name.replace('_', '-')}" for name in names]


# An option that only some forms read -> these forms.
_READ_BY: dict[str, tuple[str, ...]] = {
    "--judge": (STEPS, "rewrite"), "--rollouts": (STEPS,), "--threshold": BY_THRESHOLD,
}  # fmt: skip


def objective_for(form: str, options: AnswerOptions) -> str:
    """An objective that trains on what was written, in words, for the line that says how to go on."""
    if options.contrast or options.guide:
        return "cdpo" if options.contrast else "tgdpo"
    if options.embed:
        return "sem_dpo_text"
    if options.steps_like_best:
        return "tree_tpo" + (BY_WINS if form == WINS else "")
    lists = {"list": "adpo_text", WINS: "adpo_text" + BY_WINS, "triple": "triple_tpo"}
    # list_dpo knows stages, prefixes and answers that were cut off; TRL's dpo ends every answer.
    return lists.get(form, "list_dpo")


def refuse_for_pictures(options: AnswerOptions) -> None:
    """Raise ParetuneError if an option for answers is given for a model of pictures or clips."""
    if options.given():
        raise ParetuneError(
            f"{options.given()[0]} is for language models; this recipe's model draws pictures or clips"
        )


def check_words(config: RunConfig, drawing: Drawing, options: AnswerOptions, out: Path) -> None:
    """Raise ParetuneError for words that do not fit, before anything is loaded."""
    _check_name("--reward", drawing.reward, config)
    if drawing.form not in KNOWN:
        raise ParetuneError(f"--form: {drawing.form} is none of {', '.join(KNOWN)}")
    least = 0 if options.answers is not None else 1 if drawing.form == "safety" else 2
    if not least <= drawing.count <= 1000:
        raise ParetuneError(f"-n: a prompt gets {least} to 1000 answers, not {drawing.count}")
    if drawing.limit < 0:
        raise ParetuneError(f"--limit: a number of prompts, or 0 for all, not {drawing.limit}")
    if out.suffix != ".jsonl":
        raise ParetuneError(f"--out: the file of pairs ends in .jsonl: {out}")
    if options.contrast is not None and options.guide is not None:
        raise ParetuneError("--contrast and --guide both write token_weights: give one of them")
    if not (math.isfinite(options.guide_beta) and 0 < options.guide_beta <= GREATEST):
        raise ParetuneError(
            f"--guide-beta: a number above 0 and at most {GREATEST:g}, not {options.guide_beta:g}"
        )
    if not math.isfinite(options.threshold):
        raise ParetuneError(f"--threshold: a finite number, not {options.threshold:g}")
    if drawing.form == "given" and options.answers is None:
        raise ParetuneError("--form given takes the better answers from a file: give --answers FILE")
    if (drawing.form == "rewrite") != (options.through is not None):
        raise ParetuneError("--form rewrite and --through RECIPE, the recipe of pictures, go together")
    if drawing.form == STEPS and (options.contrast or options.guide or options.steps_like_best):
        raise ParetuneError("--form steps writes single steps, which take no numbers for their tokens")
    if options.steps_like_best and (options.contrast or options.guide):
        raise ParetuneError("--steps-like-best splits answers into steps, whose tokens are others: leave out "
                            f"--{'contrast' if options.contrast else 'guide'}")  # fmt: skip
    if options.judge:
        _check_name("--judge", options.judge, options.through or config)
    for option, forms in _READ_BY.items():
        if option in options.given() and drawing.form not in forms:
            raise ParetuneError(f"{option} changes nothing with --form {drawing.form}: leave it out")
    if not options.step_mark:
        raise ParetuneError("--step-mark: the text that ends a step is empty")
    if "--step-mark" in options.given() and drawing.form != STEPS and not options.steps_like_best:
        raise ParetuneError(
            "--step-mark changes nothing without --form steps or --steps-like-best: leave it out"
        )
    if options.safety_prompt and not drawing.count:
        raise ParetuneError("--safety-prompt changes nothing with -n 0, which draws no answers: leave it out")
    if options.safety_prompt and drawing.form == "given":
        raise ParetuneError(
            "--safety-prompt changes nothing with --form given, which takes better answers from the file: "
            "leave it out"
        )
    if "--guide-beta" in options.given() and options.guide is None:
        raise ParetuneError("--guide-beta changes nothing without --guide: leave it out")
    if options.steps_like_best and drawing.form not in {"list", WINS}:
        raise ParetuneError("--steps-like-best writes weights of whole lists: add --form list")
    if options.ladder_by not in LADDERS:
        raise ParetuneError(f"--ladder-by: {options.ladder_by} is none of {', '.join(LADDERS)}")
    if options.ladder_by != "score" and drawing.form != "ladder":
        raise ParetuneError("--ladder-by orders the stages of a ladder: add --form ladder")
    if not 1 <= options.rollouts <= 1000:
        raise ParetuneError(f"--rollouts: 1 to 1000 answers from a prefix, not {options.rollouts}")
    check_new(out)


def _check_name(option: str, name: str, config: RunConfig) -> None:
    if name not in config.rewards:
        near = difflib.get_close_matches(name, config.rewards, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the recipe has {', '.join(config.rewards)}"
        raise ParetuneError(f"{option}: there is no reward {name}; {hint}")
