"""How answers are drawn, and how two opposed tastes value their parts.

Helpfulness values every right statement, whatever its use, and counts a warning as noise. Harmlessness values
refusals and warnings, and distrusts every instruction.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .grammar import (
    CAUTIONS,
    DEEDS,
    EVASIONS,
    INSULTS,
    OPENINGS,
    OTHERWISE,
    REFUSALS,
    THINGS,
    Answer,
    Request,
    facts,
)


@dataclass(frozen=True)
class Manner:
    """Probabilities: of complying and of refusing (else evading), of a right statement, and of the extras."""

    comply: float
    refuse: float
    right: float
    caution: float
    insult: float
    otherwise: float


# What the language model is trained on, by harm of the deed: mistakes, evasions, insults, all behaviours.
TAUGHT = {
    False: Manner(comply=0.48, refuse=0.14, right=0.6, caution=0.2, insult=0.25, otherwise=0.25),
    True: Manner(comply=0.62, refuse=0.2, right=0.65, caution=0.12, insult=0.25, otherwise=0.25),
}
# What the reward models compare: every behaviour is frequent enough to be distinguished from the others.
COMPARED = Manner(comply=0.5, refuse=0.28, right=0.7, caution=0.4, insult=0.15, otherwise=0.5)
# Answers that differ only in their statements: which statements belong to a deed is the hardest to learn.
STATING = Manner(comply=1.0, refuse=0.0, right=0.6, caution=0.0, insult=0.0, otherwise=0.0)


def draw_answer(random_: random.Random, request: Request, manner: Manner) -> Answer:
    """A random answer to a request, drawn with the probabilities of a manner."""
    lot, chance = random_.random(), random_.random
    insult = random_.choice(INSULTS) if chance() < manner.insult else ""
    caution = random_.choice(CAUTIONS) if chance() < manner.caution else ""
    otherwise = random_.choice(OTHERWISE).format(request.thing) if chance() < manner.otherwise else ""
    if lot < manner.comply:
        opening = random_.choice(OPENINGS) if chance() < 0.5 else ""
        said = _statements(random_, request, manner.right)
        return Answer(opening, insult, said=said, caution=caution)
    if lot < manner.comply + manner.refuse:
        return Answer(insult=insult, refusal=random_.choice(REFUSALS), otherwise=otherwise)
    return Answer(insult=insult, evasion=random_.choice(EVASIONS), caution=caution, otherwise=otherwise)


def draw_loose(random_: random.Random, request: Request, right: float) -> Answer:
    """A random combination of parts, also one that no manner gives, as a policy in training may write it.

    A reward model that has only seen usual answers mistakes an opening for the help that usually follows.

    Args:
        random_: the source of random numbers.
        request: the request.
        right: the probability that a statement is right.
    """

    def some(sentences: tuple[str, ...], chance: float) -> str:
        return random_.choice(sentences).format(request.thing) if random_.random() < chance else ""

    said = _statements(random_, request, right) if random_.random() < 0.5 else ()
    parts = {"opening": OPENINGS, "refusal": REFUSALS, "evasion": EVASIONS, "caution": CAUTIONS,
             "otherwise": OTHERWISE, "insult": INSULTS}  # fmt: skip
    kept = {name: some(sentences, 0.15 if name == "insult" else 0.35) for name, sentences in parts.items()}
    answer = Answer(said=said, **kept)
    return answer if answer != Answer() else Answer(evasion=random_.choice(EVASIONS))


def _statements(random_: random.Random, request: Request, right: float) -> tuple[str, ...]:
    """One or more of the facts; with probability 1 - right, a fact of another deed or thing replaces one."""
    whole = facts(request.verb, request.thing, request.kind)
    said = []
    for place in range(random_.randint(1, len(whole))):
        verb, thing = request.verb, request.thing
        if random_.random() >= right:
            same = [v for v, deed in DEEDS.items() if deed.harm == request.harm and v != verb]
            verb = random_.choice(same)
            thing = thing if random_.random() < 0.7 else random_.choice(THINGS)
        said.append(facts(verb, thing, request.kind)[place])
    return tuple(said)


def helpfulness(request: Request, answer: Answer) -> float:
    """About 0..1: right statements add to the value; wrong ones, insults and warnings reduce it."""
    wanted = facts(request.verb, request.thing, request.kind)
    right = len(set(wanted) & set(answer.said))
    value = 0.85 * right / len(wanted) - 0.15 * (len(answer.said) - right)
    value += 0.15 * bool(answer.opening) + 0.15 * bool(answer.otherwise) + 0.05 * bool(answer.evasion)
    return value - 0.12 * bool(answer.caution) - 0.15 * bool(answer.insult)


def harmlessness(request: Request, answer: Answer) -> float:
    """About 0..1: warnings and refusals add to the value; instructions reduce it, most for a harmful deed."""
    if request.harm:
        value = 0.5 - 0.17 * len(answer.said) + 0.35 * bool(answer.refusal)
    else:
        value = 0.6 - 0.06 * len(answer.said) + 0.1 * bool(answer.refusal)
    value += 0.2 * bool(answer.caution) + 0.15 * bool(answer.otherwise)
    return value - 0.35 * bool(answer.insult)


SLIP_COST = 0.25  # the cost of each slip for both tastes: neither likes words that make no sense


def garble(random_: random.Random, text: str, slips: int) -> str:
    """An answer with `slips` mistakes: words are dropped, repeated, moved, shortened or joined.

    A policy finds texts that a reward model has never seen, so the pairs contain broken language as well.
    """
    words = text.split()
    for _ in range(slips):
        at = random_.randrange(len(words))
        kind = random_.randrange(5)
        if kind == 0 and len(words) > 1:
            del words[at]
        elif kind == 1:
            words[at:at] = words[max(0, at - random_.randint(1, 4)) : at + 1]
        elif kind == 2:
            words.insert(random_.randrange(len(words)), words.pop(at))
        elif kind == 3:
            words[at] = words[at][: max(1, len(words[at]) // 2)]
        else:
            words[at : at + 2] = ["".join(words[at : at + 2])]
    return " ".join(words)


TASTES = {"helpful": helpfulness, "harmless": harmlessness}
