"""Write the world's prompt sets: for each reward a train and a test set, as GenEval records.

    python -m tools.worlds.pictures.make_prompts

Nothing of a test set, no caption and no word of a sign, occurs in any train set. Half of the
words are English, half random; each is spelled letter by letter by the world's tokenizer
(`is_spelled`).
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import CLIPTokenizer

from paretune.worlds import pictures
from paretune.worlds.pictures.scenes import Scene, caption, geneval_metadata, random_scene, random_word

from .tokenizer import build_tokenizer, is_spelled

SEED = 20
SIZES = {"train": 400, "test": 128}
KINDS = {
    "geneval": {"single": 0.15, "pair": 0.40, "relation": 0.45},
    "ocr": {"sign": 0.75, "mixed": 0.25},
    "preference": {"single": 0.06, "pair": 0.22, "relation": 0.22, "sign": 0.25, "mixed": 0.25},
}
WORDS = """
able acid also arch army atom aunt axis baby back bacon bald balm bank barn basic bath beach beam
beef belt bench bird blank blink block boat bold bolt bomb book boss bowl brain branch brick brim
broth brush bulb bulk bunch bunk bush cabin cafe cake calm camp candy cash cave chain chalk chat
check chef chess chick chief chip chunk city clay click cliff climb cloak clock cloth club coach
cobra coffee coil coin colt comb cook cork couch cough crab crack crash cream crib crisp crow
crumb cube cup dark dash dawn deck deep desk dial dish disk dock dolls doll dome door dove down
drain drawn dream drum duck dusk dutch echo epic exam fact film firm fish five flag flash flesh
flip flock flow foam folk fork fox fresh frog gate giant girl give glow glue goat gold golf grab
graph grasp grim grip hawk help herb hero hike hill hook hotel hunch idea igloo inch itch jazz
joke jump junk kayak keep kick kilo king kiwi lake lamb lamp lark latch leaf leap lemon lilac
limb limit lion lock logic logo loop lunch magic mail main march mark mask math maze menu milk
mind mint moth movie mouth myth nail navy neck nine ninja oath okra open opal orbit oven oxide
palm panda panic park path patch peach peak pearl photo piano pick pile pilot pinch pink pipe
pixel pizza plan plum plumb poem pond pool porch pump punch puppy quick quiz radio raft rail rain
ranch rank reach robin rock roof rope ruby sail salt sauce scarf self shark sheep shelf shift
ship shock silk sink skip sleep slim sloth snail snake snow soap soda sofa soil solo song soup
spark spoil spoon staff stamp steak stem stick stock storm straw suit sushi swap swim sword taco
tail talk tank task taxi teach team tempo thick thief think tilt toast tofu tomb tool torch truck
trunk tulip tuna turf twin unit vault veil verb video view vinyl vocal void walk wand warm watch
wave wealth week whale what wheel whip wind wink wolf work wrap yacht yeti yoga zebra zinc zoom
"""


def main() -> None:
    """Write all six sets; the test sets first, so that the train sets can keep clear of them."""
    folder = Path(str(pictures.__file__)).parent / "prompts"
    folder.mkdir(exist_ok=True)
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as place:
        tokenizer = build_tokenizer(Path(place))
    words = [w for w in dict.fromkeys(WORDS.split()) if 4 <= len(w) <= 5]
    words = [w for w in words if is_spelled(tokenizer, w)]
    rng.shuffle(words)
    cut = len(words) // 4
    tested: list[Scene] = []
    for split, english in (("test", words[:cut]), ("train", words[cut:])):
        avoid = frozenset(_keys(tested))
        for name, kinds in KINDS.items():
            scenes = _draw_set(rng, kinds, SIZES[split], english, tokenizer, avoid)
            if split == "test":
                tested += scenes
            lines = [json.dumps(geneval_metadata(scene)) for scene in scenes]
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(lines) + "\n")


def _draw_set(
    rng: random.Random,
    kinds: dict[str, float],
    size: int,
    english: Sequence[str],
    tokenizer: CLIPTokenizer,
    avoid: frozenset[str],
) -> list[Scene]:
    """`size` scenes of those shares, no two alike, none with a caption or a word of `avoid`."""
    scenes: dict[str, Scene] = {}
    for kind, share in kinds.items():
        goal = min(len(scenes) + round(size * share), size)
        while len(scenes) < goal:
            scene = random_scene(rng, kind)
            if scene.word is not None:
                word = rng.choice(english) if rng.random() < 0.5 else random_word(rng)
                scene = replace(scene, word=word)
                if not is_spelled(tokenizer, word):
                    continue
            if avoid.isdisjoint(_keys([scene])):
                scenes.setdefault(caption(scene), scene)
    drawn = list(scenes.values())
    rng.shuffle(drawn)
    return drawn


def _keys(scenes: Sequence[Scene]) -> list[str]:
    return [key for s in scenes for key in (caption(s), s.word) if key is not None]


if __name__ == "__main__":
    main()
