"""TRL's losses on preference pairs, for prompts whose records hold `chosen` and `rejected` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from ...config import RunConfig
from ...types import ParetuneError, Prompt, turns_of
from .base import SameAnswers
from .trl import Batches, TrlObjective


class PairLoss(TrlObjective):
    """A loss on pairs of TRL's.

    uncut: the `max_length` that keeps TRL from cutting long answers, which are checked against the model's
    context instead.
    """

    uncut: ClassVar[int | None] = None
    draws: ClassVar[bool] = False

    @classmethod
    def fixed(cls, config: RunConfig, kl: float, batches: Batches) -> dict[str, Any]:
        """See `TrlObjective`. TRL must keep our order of the rows."""
        return {"train_sampling_strategy": "sequential"}

    @classmethod
    def defaults(cls, config: RunConfig, options: Any, kl: float) -> dict[str, Any]:
        """See `TrlObjective`. Without a KL the loss uses TRL's default for beta."""
        return {"max_length": cls.uncut, **({"beta": kl} if kl > 0 else {})}

    @classmethod
    def check_prompts(cls, name: str, prompts: Sequence[Prompt]) -> None:
        """See `Objective.check_prompts`."""
        for prompt in prompts:
            pair_of(name, prompt)
        for prompt in prompts:  # last, as the records of a data set that nobody can mend may have it
            chosen, rejected = pair_of(name, prompt)
            if chosen == rejected:
                raise SameAnswers(
                    f"objective {name} compares answers: the prompt {prompt.text[:60]!r} has the same text "
                    'as "chosen" and as "rejected"; leave the record out'
                )

    @classmethod
    def told_of(cls, name: str, prompts: Sequence[Prompt], options: Any) -> str:
        """See `Objective.told_of`. TRL ends every answer."""
        cut = sum(_cut(prompt.metadata.get("answers")) for prompt in prompts)
        if not cut:
            return ""
        return (
            f"{cut:,} of {len(prompts):,} records have an answer that was cut off, after which objective "
            f"{name} trains an end token: list_dpo and the other losses on lists train none"
        )

    @classmethod
    def rows(
        cls, name: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int],
        chats: bool = False,
    ) -> list[dict[str, Any]]:
        """One row for each pair. Raises ParetuneError for a prompt without a pair."""
        pairs = [asked_and_pair(name, prompts[i], texts[i], chats) for i in index]
        return [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]


def _cut(answers: Any) -> bool:
    """Whether a record's answers say that one was cut off. A column of that name may hold anything."""
    entries = cast("list[Any]", answers) if isinstance(answers, list) else []
    return any(isinstance(entry, Mapping) and entry.get("ends") is False for entry in entries)


def asked_and_pair(name: str, prompt: Prompt, text: str, chats: bool) -> tuple[Any, Any, Any]:
    """The prompt, the preferred answer and the other one. chats: as conversations instead of texts."""
    answers = pair_of(name, prompt)
    if not chats:
        return text, *answers
    chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in answers)
    return turns_of(prompt.text), chosen, rejected


def pair_of(name: str, prompt: Prompt) -> tuple[str, str]:
    """The preferred answer and the other one. Raises ParetuneError if the record lacks one of them."""
    chosen, rejected = (prompt.metadata.get(key) for key in ("chosen", "rejected"))
    for answer in (chosen, rejected):
        if not isinstance(answer, str) or not answer.strip():
            raise ParetuneError(
                f"objective {name} trains on pairs: the prompt {prompt.text[:60]!r} has no "
                '"chosen" and "rejected" texts in its record'
            )
    if prompt.metadata.get("prefix"):
        raise ParetuneError(
            f"objective {name} cannot go on a prefix, which the prompt {prompt.text[:60]!r} has in its "
            "record; list_dpo can"
        )
    return str(chosen), str(rejected)


class _OfDPOTrainer(PairLoss):
    place = "trl:DPOTrainer:DPOConfig"


class DPO(_OfDPOTrainer):
    """Direct preference optimisation."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["sigmoid"]}


class IPO(_OfDPOTrainer):
    """Identity preference optimisation."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["ipo"]}


class Hinge(_OfDPOTrainer):
    """The hinge loss of SLiC."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["hinge"]}


class Robust(_OfDPOTrainer):
    """DPO for labels some of which are wrong; `options.label_smoothing` is their share."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["robust"]}


class SPPOHard(_OfDPOTrainer):
    """Self-play preference optimisation with hard labels."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["sppo_hard"]}


class APOZero(_OfDPOTrainer):
    """Anchored preference optimisation, for answers better than the model's."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["apo_zero"]}


class APODown(_OfDPOTrainer):
    """Anchored preference optimisation, for answers worse than the model's."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": ["apo_down"]}


NEVER_CUT = 1 << 30  # these trainers take None for 512


class CPO(PairLoss):
    """Contrastive preference optimisation, without a reference."""

    uncut = NEVER_CUT
    place = "trl.experimental.cpo:CPOTrainer:CPOConfig"
    whole_logits = True
    whole_batches = True  # means over the tokens of a micro-batch


class SimPO(CPO):
    """Simple preference optimisation: mean log-probabilities and a margin."""

    loss_arguments: ClassVar[Mapping[str, Any]] = {"loss_type": "simpo", "cpo_alpha": 0.0}
    whole_batches = False


class ORPO(PairLoss):
    """Odds-ratio preference optimisation, without a reference."""

    uncut = NEVER_CUT
    place = "trl.experimental.orpo:ORPOTrainer:ORPOConfig"
    whole_logits = True
    whole_batches = True  # means over the tokens of a micro-batch


class KTO(PairLoss):
    """Kahneman-Tversky optimisation: every pair is two answers, each with its label."""

    place = "trl:KTOTrainer:KTOConfig"
    rows_a_prompt = 2
    whole_batches = True  # its baseline is a mean over the micro-batch

    @classmethod
    def rows(
        cls, name: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int],
        chats: bool = False,
    ) -> list[dict[str, Any]]:
        """Two rows for each pair."""
        rows: list[dict[str, Any]] = []
        for i in index:
            asked, chosen, rejected = asked_and_pair(name, prompts[i], texts[i], chats)
            rows.append({"prompt": asked, "completion": chosen, "label": True})
            rows.append({"prompt": asked, "completion": rejected, "label": False})
        return rows
