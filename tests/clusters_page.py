"""The blocks and the commands of docs/clusters.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text(encoding="utf-8")


def block(kind: str, word: str) -> str:
    """The one block of a kind (`sh`, `yaml`) in which a word is."""
    (found,) = [text for text in re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.S | re.M) if word in text]
    return found


def commands(program: str) -> list[list[str]]:
    """The words of all whole commands of a program on the page, each once.

    A command with ".." is not whole, and one in the text that has no arguments is only a name.
    """
    code = "\n".join(re.findall(r"^```\w+\n(.*?)^```", PAGE, re.S | re.M))
    texts = re.findall(rf"(?:^|\s|- )({program} [a-z-]+(?: .*)?)$", code, re.M)
    inline = re.findall(rf"`(?:[^`]+ -- )?({program} [^`]*)`", PAGE)  # also what `ray job submit --` starts
    texts += [text for text in inline if re.search(r" \w\S* .*\w$", text)]
    whole = [re.sub(r"(\s+#|\s*&$).*", "", text) for text in texts if text != "ray start --address"]
    return [shlex.split(text) for text in dict.fromkeys(whole) if ".." not in text]
