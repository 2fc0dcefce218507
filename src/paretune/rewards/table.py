"""The table of registered rewards, the names that they had before, and how another package adds one.

The plain names are those of rewards for real pictures. A reward that is made for an embedded world has the
world's name in front. Other packages add theirs by the entry point group below, as in docs/add-a-reward.md.
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint

from paretune.types import ParetuneError

from ..foreign.entry_points import added, load_added

GROUP = "paretune.rewards"
_HERE = __name__.rpartition(".")[0]

REWARDS: dict[str, str] = {
    "geneval": f"{_HERE}.photo.geneval:GenEvalPhoto",
    "ocr": f"{_HERE}.photo.ocr:SceneOcr",
    "pickscore": f"{_HERE}.photo.pickscore:PickScore",
    "hpsv2": f"{_HERE}.photo.hpsv2:HPSv2",
    "clipscore": f"{_HERE}.photo.clipscore:ClipScore",
    "aesthetic": f"{_HERE}.photo.aesthetic:Aesthetic",
    "imagereward": f"{_HERE}.photo.imagereward:ImageReward",
    "mps": f"{_HERE}.photo.mps:MPS",
    "hpsv3": f"{_HERE}.photo.hpsv3:HPSv3",
    "vqascore": f"{_HERE}.photo.vqascore:VqaScore",
    "geneval2": f"{_HERE}.photo.geneval2:GenEval2",
    "diversity": f"{_HERE}.photo.diversity:Diversity",
    "unified_reward": f"{_HERE}.photo.unified_reward:UnifiedReward",
    "deqa": f"{_HERE}.photo.deqa:DeQA",
    "likeness": f"{_HERE}.photo.likeness:Likeness",
    "videoalign": f"{_HERE}.clips.videoalign:VideoAlign",
    "vbench_flicker": f"{_HERE}.clips.vbench:Flicker",
    "vbench_subject": f"{_HERE}.clips.vbench:SubjectConsistency",
    "vbench_background": f"{_HERE}.clips.vbench:BackgroundConsistency",
    "vbench_dynamic": f"{_HERE}.clips.vbench:DynamicDegree",
    "text_model": f"{_HERE}.text.reward_models:TextModelReward",
    "length": f"{_HERE}.text.reward_models:LengthPenalty",
    "repetition": f"{_HERE}.text.reward_models:RepetitionPenalty",
    "positivity": f"{_HERE}.text.everyday:Positivity",
    "reading_ease": f"{_HERE}.text.everyday:ReadingEase",
    "brevity": f"{_HERE}.text.everyday:Brevity",
    "distinct": f"{_HERE}.text.everyday:DistinctPairs",
    "clean": f"{_HERE}.text.everyday:CleanWords",
    "instructions": f"{_HERE}.text.instructions:Instructions",
    "perplexity": f"{_HERE}.text.perplexity:Perplexity",
    "remote": f"{_HERE}.remote.client:Remote",
    "vlm_judge": f"{_HERE}.remote.judge:VlmJudge",
    "skywork": f"{_HERE}.text.skywork:Skywork",
    "armorm": f"{_HERE}.text.armo:ArmoRM",
    "guard": f"{_HERE}.text.guard:Guard",
    "ifeval": f"{_HERE}.text.ifeval:IFEval",
    "pictures.geneval": f"{_HERE}.worlds.geneval:GenEvalReward",
    "pictures.geneval_strict": f"{_HERE}.worlds.geneval:StrictGenEval",
    "pictures.ocr": f"{_HERE}.worlds.ocr:OcrReward",
    "pictures.preference": f"{_HERE}.worlds.preference:PreferenceReward",
    "pictures.rapidocr": f"{_HERE}.worlds.ocr:RapidOcrJudge",
    "pictures.preference_judge": f"{_HERE}.worlds.preference:PreferenceJudge",
    "pictures.vqa": f"{_HERE}.worlds.vqa:CaptionJudge",
    "pictures.contrast": f"{_HERE}.worlds.layout:ContrastReward",
    "pictures.prominence": f"{_HERE}.worlds.layout:ProminenceReward",
    "clips.video_quality": f"{_HERE}.worlds.video:VideoQuality",
    "clips.motion_quality": f"{_HERE}.worlds.video:MotionQuality",
    "clips.visual_judge": f"{_HERE}.worlds.video_judges:VisualJudge",
    "clips.motion_judge": f"{_HERE}.worlds.video_judges:MotionJudge",
    "assistant.helpful_rules": f"{_HERE}.worlds.text_rules:HelpfulRules",
    "assistant.harmless_rules": f"{_HERE}.worlds.text_rules:HarmlessRules",
}
# Rewards that are asked over the network -> the options that say where and how, and not what is asked.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "remote": ("url", "token_env", "patience"),
    "vlm_judge": ("url", "key_env", "patience", "timeout", "concurrency", "cache"),
}
# The name that a reward had before the embedded worlds' got their prefix -> its name now. `geneval` and `ocr`
# are names of other rewards now, so that they are replaced only where a recipe is known to be older.
FORMER: dict[str, str] = {
    "geneval_photo": "geneval",
    "scene_ocr": "ocr",
    **{name.partition(".")[2]: name for name in REWARDS if "." in name},
}
_FORMER_NAME = {now: former for former, now in FORMER.items()}


def place_of(spec: str) -> str:
    """"module:Name" of a registered reward of paretune; any other spec as it is."""
    return REWARDS.get(spec, spec)


def added_reward(spec: str) -> EntryPoint | None:
    """The entry point of a reward that another package registers by this name; paretune's own come first."""
    return None if ":" in spec or spec in REWARDS else added(GROUP).get(spec)


def load_added_reward(point: EntryPoint) -> object:
    """What the entry point names. Raises ParetuneError where it cannot be imported."""
    return load_added("reward", point)


def unknown_reward(spec: str) -> ParetuneError:
    """The line about a name that no reward has: what it is called now, or the nearest name."""
    if spec in FORMER:
        return ParetuneError(f"the reward {spec} is called {FORMER[spec]} now")
    known = [*REWARDS, *added(GROUP)]
    near = difflib.get_close_matches(spec.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ParetuneError(
        f"unknown reward {spec!r}{hint} (known: {', '.join(known)}; or give module:Name or file.py:Name)"
    )


def identity(spec: str) -> str:
    """What digests of a run know a reward by: the name that it had first, so that older runs go on.

    A reward of another package is known by the place of its code too.
    """
    point = added_reward(spec)
    return f"{spec} = {point.value}" if point else _FORMER_NAME.get(spec, spec)
