"""Write the world's prompt sets: python -m tools.worlds.clips.make_prompts.

A quarter of the 192 captions is held out: no caption of a test set occurs in a train set. Both rewards are
asked of every caption, so their sets differ in order alone.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from paretune.worlds import clips as world
from paretune.worlds.clips.scenes import all_clips, record

SEED = 30
HELD_OUT = 48


def main() -> None:
    """Write all four sets."""
    folder = Path(str(world.__file__)).parent / "prompts"
    folder.mkdir(exist_ok=True)
    rng = random.Random(SEED)
    clips = all_clips()
    rng.shuffle(clips)
    for name in ("visual", "motion"):
        for split, chosen in (("test", clips[:HELD_OUT]), ("train", clips[HELD_OUT:])):
            drawn = rng.sample(chosen, len(chosen))
            lines = [json.dumps(record(clip)) for clip in drawn]
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
