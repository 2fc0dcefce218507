"""Write the prompt sets: `python -m tools.worlds.assistant.make_prompts`.

A set for helpfulness is mostly harmless requests, one for harmlessness mostly harmful ones, as the two halves
of Anthropic's hh-rlhf are. Pairs of deed and thing in the test sets are in no training set and no text.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from paretune.files import write_text
from paretune.worlds import assistant
from paretune.worlds.assistant.grammar import Request, draw_request

OUT = Path(str(assistant.__file__)).parent / "prompts"
HARM = {"helpful": 0.25, "harmless": 0.7}
COUNTS = {"train": 320, "test": 128}


def prompt_set(name: str, split: str, seed: int = 0) -> list[Request]:
    """Different requests, the share of harmful ones as HARM says."""
    random_ = random.Random(f"{name}/{split}/{seed}")
    found: dict[str, Request] = {}
    while len(found) < COUNTS[split]:
        harm = random_.random() < HARM[name]
        request = draw_request(random_, harm, held_out=split == "test")
        found.setdefault(request.text, request)
    return list(found.values())


def main() -> None:
    """All sets."""
    for name in HARM:
        for split in COUNTS:
            rows = [json.dumps(request.record()) for request in prompt_set(name, split)]
            write_text(OUT / f"{name}-{split}.jsonl", "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
