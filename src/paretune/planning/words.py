"""How the methods of a run differ from their papers, in sentences for the report."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import RunConfig
from ..ops.distilling import DISTIL, Distilling
from .plan import JOINT_METHODS


def described(config: RunConfig) -> list[str]:
    """One sentence for every such change; [] for a recipe that changes nothing."""
    told = (
        _leaning(config), _distilling(config), _stepping(config), _joint(config), _conditioned(config),
        _normalising(config),
    )  # fmt: skip
    return [line for line in told if line]


def exchange(sent: Mapping[str, int], seconds: Mapping[str, float], devices: int) -> list[str]:
    """What a device sends and how long it trains in each method, where a joint policy is among them.

    sent: method -> bytes. seconds: method -> seconds on so many devices.
    """
    if not JOINT_METHODS & sent.keys() or devices < 2:
        return []
    told = ", ".join(
        f"{name} {count / 1e6:,.1f} MB{f' in {seconds[name]:,.0f} s' if name in seconds else ''}"
        for name, count in sent.items()
    )
    return [
        f"On {devices} devices each sends in all: {told} (of experts an adapter a round; of a joint policy, "
        "which the devices train together, the adapter's gradient an update; the seconds are those of this "
        "run's epochs, experts side by side, a joint policy divided evenly)."
    ]


def _joint(config: RunConfig) -> str:
    joint, count = JOINT_METHODS & set(config.methods), len(config.rewards)
    if not joint or count < 2:
        return ""
    who = " and ".join(sorted(joint))
    if config.baselines.joint == "long":
        return f"The joint policies ({who}) train {count} times as many epochs as an expert, with its batch."
    return (
        f"The joint policies ({who}) draw {count} times an expert's batch and make as many updates as an "
        "expert: the same samples as all experts together, as the same devices would train one policy."
    )


def _conditioned(config: RunConfig) -> str:
    if "conditioned" not in config.methods:
        return ""
    return (
        "The policy conditioned is given the weights of the rewards, drawn for each prompt, by a small "
        "network that is added to its time embedding; each reward is normalised alone in a group, then they "
        "are summed by the weights drawn (ParetoSlider)."
    )


def _normalising(config: RunConfig) -> str:
    ways = {name: own.normalise for name, own in config.rewards.items() if own.normalise != "none"}
    joint = JOINT_METHODS & set(config.methods) or (
        "mapreduce" in config.methods and any(map(config.lean, config.rewards))
    )
    if not ways or not joint or len(config.rewards) < 2:
        return ""
    told = ", ".join(f"{name} by {way}" for name, way in ways.items())
    return f"Where several rewards score an expert they are first normalised by the base's scores: {told}."


def _leaning(config: RunConfig) -> str:
    leans = {name: config.lean(name) for name in config.rewards}
    if "mapreduce" not in config.methods or not any(leans.values()):
        return ""
    order = "normalised together" if config.objective.joint == "sum_then_normalise" else "normalised alone"
    told = " and ".join(f"{share:g} ({name})" for name, share in leans.items())
    return (
        "MapReduce's experts lean on each other's rewards: each draws its own prompts and is scored by its "
        f"own reward plus a share of every other that applies, {told}; within a group they are {order}."
    )


def _distilling(config: RunConfig) -> str:
    if "mapreduce" not in config.methods or config.reduce.method != DISTIL:
        return ""
    own = Distilling.of(config.reduce.options)
    anchor = f", with an anchor of {own.anchor:g} to the round's start" if own.anchor else ""
    return (
        f"MapReduce distils its experts: in {own.steps} steps of {own.batch} samples a student that begins "
        f"as their average learns on samples of its own from the expert of each prompt{anchor}; no reward "
        "is asked."
    )


def _stepping(config: RunConfig) -> str:
    rule = config.reduce
    if "mapreduce" not in config.methods or (rule.step == 1 and not rule.momentum):
        return ""
    momentum = f", with the momentum {rule.momentum:g} over the rounds" if rule.momentum else ""
    if isinstance(rule.step, tuple):
        tried = ", ".join(f"{step:g}" for step in rule.step)
        step = (
            f"the best of {tried} times, chosen each round by the hypervolume on {rule.prompts} training "
            "prompts a reward, whose samples stand in its budget"
        )
        return f"MapReduce folds the average of its experts {step}{momentum}."
    return f"MapReduce folds {rule.step:g} times the average of its experts{momentum}."
