"""Write the prompt sets of everyday questions: python -m tools.worlds.everyday.make_prompts

Every fourth question is held out. The sets with instructions add one or two to each question, in turn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paretune

HERE = Path(__file__).parent
OUT = Path(paretune.__file__).parent / "worlds" / "everyday" / "prompts"
# What the prompt says, and how the reward `instructions` checks it.
INSTRUCTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Use at most 30 words.", {"kind": "max_words", "count": 30}),
    ("Answer with a numbered list of three points.", {"kind": "numbered", "count": 3}),
    ("Write exactly two sentences.", {"kind": "sentences", "count": 2}),
    ("Do not use any commas.", {"kind": "no_commas"}),
    ("Answer in lower case only.", {"kind": "lowercase"}),
    ("Give exactly three bullet points that start with *.", {"kind": "bullets", "count": 3}),
    ('Begin with the words "In short".', {"kind": "start", "phrase": "In short"}),
    ('Do not use the word "important".', {"kind": "forbid", "phrase": "important"}),
    ('End with the words "Good luck!"', {"kind": "end", "phrase": "Good luck!"}),
    ('Use the word "simple".', {"kind": "include", "phrase": "simple"}),
    ("Write at least 60 words.", {"kind": "min_words", "count": 60}),
    ("Finish with a question.", {"kind": "question"}),
)
# Pairs that no answer could follow together are left out: by their numbers above.
AGAINST = {(0, 10), (8, 11), (4, 6), (4, 8), (1, 2), (1, 5), (2, 5), (1, 6), (5, 6)}


def instructed(number: int, question: str) -> dict[str, Any]:
    """A question with the instructions of its number: one for every third question, otherwise two."""
    first = number % len(INSTRUCTIONS)
    chosen = [first]
    if number % 3:
        others = [
            (first + step) % len(INSTRUCTIONS)
            for step in range(1, len(INSTRUCTIONS))
            if tuple(sorted((first, (first + step) % len(INSTRUCTIONS)))) not in AGAINST
        ]
        chosen.append(others[number // len(INSTRUCTIONS) % len(others)])
    told, checks = zip(*(INSTRUCTIONS[i] for i in chosen), strict=True)
    return {"prompt": " ".join([question, *told]), "checks": list(checks)}


def main() -> None:
    """Write four files: train and test, plain and with instructions."""
    questions = (HERE / "questions.txt").read_text().splitlines()
    sets: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for name in list(sets):
        sets[f"instructions-{name}"] = []
    for number, question in enumerate(questions):
        part = "test" if number % 4 == 3 else "train"
        sets[part].append({"prompt": question})
        sets[f"instructions-{part}"].append(instructed(number, question))
    OUT.mkdir(parents=True, exist_ok=True)
    for name, records in sets.items():
        (OUT / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    main()
