"""What losses on lists of answers need of a record: scores, a margin, a share, a weight or token weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...config import RunConfig
from ...data.answer_lists import WINS, Answer, AnswerList
from ...data.prompts import load_prompts
from ...types import ParetuneError

WORDS: Mapping[str, str] = {
    "values": 'a score of every answer ("scores")',
    "margin": 'a "margin", or scores of both answers, in log-odds',
    "share": 'a "share" of voters, a "margin", or scores of both answers',
    "weight": 'a "weight" or a "drift"',
    "token_weights": '"token_weights" of every answer and the "tokenizer" that they were made with',
}
OF_SCORES = ("values", "margin", "share")  # needs that scores can meet, of which one must be meant
ScoreOf = Callable[[Answer], float | None]


def margin_of(
    record: AnswerList, answers: Sequence[Answer], score_of: ScoreOf = Answer.score, named: str = ""
) -> float | None:
    """The margin of a record: as it says, or the gap of the scores of its first and its last answer.

    named: the score that the user has named, which then comes before what the record says; but not the share
    of rivals beaten, which is no log-odds.
    """
    if record.margin is not None and named in ("", WINS):
        return record.margin
    best, worst = score_of(answers[0]), score_of(answers[-1])
    return None if best is None or worst is None else best - worst


def check_needs(name: str, record: AnswerList, answers: Sequence[Answer], needs: Sequence[str]) -> None:
    """Raise ParetuneError, which names the prompt, if a record lacks one of the things that are needed."""
    for need in needs:
        if not _holds(record, answers, need):
            where = f"the prompt {record.prompt.text[:60]!r}"
            raise ParetuneError(f"objective {name} needs {WORDS[need]}: {where} has none in its record")


def check_score(
    record: AnswerList, answers: Sequence[Answer], needs: Sequence[str], score_of: ScoreOf, named: str
) -> None:
    """Raise ParetuneError, which names the prompt, where it is not known which score is meant.

    Args:
        record: the record.
        answers: those of it that are trained on.
        needs: what the loss needs of a record.
        score_of: the score of an answer that is meant.
        named: its name as objective.options.score says it, or "". It must be there even where the loss needs
            no score, or the record says what it needs.
    """
    wanted = [need for need in needs if need in OF_SCORES and (named or not _said(record, need))]
    if not wanted and not named:
        return
    compared = record.pair if wanted and "values" not in wanted else answers
    if all(score_of(answer) is not None for answer in compared):
        return
    shared = sorted(set[str].intersection(*(set(answer.scores) for answer in compared)))
    raise ParetuneError(
        f"the prompt {record.prompt.text[:60]!r}: its answers have "
        + (f"no score {named}" if named else "several scores")
        + "; objective.options.score names the one to train on: "
        + (f"all of them have {', '.join(shared)}" if shared else "there is none that all of them have")
    )


def refuse_squashed(config: RunConfig, given: Sequence[str] = ("margin",), named: str = "") -> None:
    """Raise ParetuneError if a reward is squashed to a share where log-odds are needed and none are given.

    given: the keys of a record that make scores unnecessary. named: the score that is read whatever the
    record says, or "".
    """
    for name, reward in config.rewards.items():
        squashed = reward.options.get("squash") and named in ("", name)
        if not squashed and named != WINS:
            continue
        # `paretune pairs` undoes the squashing where it writes a margin.
        records = [prompt.metadata for prompt in load_prompts(reward.prompts)]
        said = all(any(record.get(key) is not None for key in given) for record in records)
        if named == WINS and not said:
            raise ParetuneError(
                f"objective.options.score: {WINS} is the share of rivals beaten, and {config.objective.name} "
                "reads margins in log-odds: name the score of a reward"
            )
        if squashed and (named or not said):
            raise ParetuneError(
                f"rewards.{name}.options.squash: {config.objective.name} reads margins in log-odds, and a "
                "squashed reward has none: set it to false, and score the records again"
                + (", or leave out objective.options.score, if they have a margin" if named else "")
            )


def _holds(record: AnswerList, answers: Sequence[Answer], need: str) -> bool:
    if need in OF_SCORES:
        return _said(record, need) or all(answer.scores for answer in answers)
    if need == "weight":
        return record.weight is not None or record.drift is not None
    return record.tokenizer is not None and all(answer.token_weights is not None for answer in answers)


def _said(record: AnswerList, need: str) -> bool:
    """Whether a record itself says what scores could tell."""
    share = need == "share" and record.share is not None
    return share or (need != "values" and record.margin is not None)
