"""Public prompt sets by name: "set:NAME@SPLIT", with their licences and the very files that they are made of.

"set:NAME@SPLIT[:200]" is 200 prompts of it, drawn at random once and for all (seed 0) and in the set's order,
because many sets are sorted by what they ask for.

Each file is named by its repository, its commit and, for those on GitHub, git's own hash of its bytes, so
that a set is the same set on every machine. Nothing is downloaded before somebody asks (`set_files`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from paretune.types import ParetuneError

PREFIX = "set:"
_COUNT = re.compile(r"(.*)\[:(\d{1,9})\]")


@dataclass(frozen=True)
class Source:
    """One published file.

    repo, revision, path: where it is; hub: of the Hugging Face hub (a dataset), else of GitHub. blob: git's
    hash of its bytes. size: its bytes, None where nobody here could look. form: how it is read
    (`set_files.FORMS`). more: what is added to the record of each of its prompts.
    """

    repo: str
    revision: str
    path: str
    form: str
    size: int | None
    blob: str | None = None
    hub: bool = False
    more: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """Where the file is downloaded from, or would be."""
        place = f"datasets/{self.repo}/resolve" if self.hub else self.repo
        host = "huggingface.co" if self.hub else "raw.githubusercontent.com"
        return f"https://{host}/{place}/{self.revision}/{self.path}"


@dataclass(frozen=True)
class PromptSet:
    """A set. licence: of the prompts, as far as it is stated. splits: name -> its files."""

    licence: str
    about: str
    splits: Mapping[str, tuple[Source, ...]]

    def size(self, split: str) -> int | None:
        """The bytes of a split, None where one of its files has no known size."""
        sizes = [source.size for source in self.splits[split]]
        return None if None in sizes else sum(size for size in sizes if size is not None)


_GENEVAL = ("djghosh13/geneval", "af4902f24d3ca90ebbb446dd9891a59e0f82725f")
_FLOW_GRPO = ("yifan123/flow_grpo", "ac4c86e8cae021841f1fde853d340e0db67690dd")
_PARTI = ("google-research/parti", "5a657978134374ce28973948331b319adef164bd")
_VBENCH = ("Vchitect/VBench", "45e79ec14e69a2187202c675d2dbce1a71843d53")
_DANCE = ("XueZeyue/DanceGRPO", "15cc71d53cc2e6e18a68ee607d5fb6ba9a99e344")
_T2I = ("Karine-Huang/T2I-CompBench", "1b7094991a57f3c22abdd4f6e8ba6c1a15517073")
_HPD = ("ymhao/HPDv2", "fd163b223b6faf112eccafeabe2e31a0e950f177")
# As the hub shows them.
_STYLES = {"anime": 62_800, "concept-art": 85_800, "paintings": 81_300, "photo": 44_600}
# category -> (blob, bytes)
_TRAIN = {
    "color": ("ad2a2f61891c430b52bacde0f44f1e363a39e8f1", 26_254),
    "shape": ("b4a2f6acaa884c32445dc24170dff6ab32141419", 40_793),
    "texture": ("b8480538fe787e406df44eb81d1751ab5ba4dbe8", 31_787),
    "spatial": ("f262fd0e1690ab8b31b7c6e40b760d2de7a4cde5", 21_562),
    "3d_spatial": ("8c87a0aa6a57c1c31e4c093ece8441bd2759b892", 18_486),
    "numeracy": ("c15c262fbfc0ce13520b15ebb2bb3a5c6c607ff9", 25_854),
    "non_spatial": ("b0d2e815bf955858caa79f4ac149ded2c8919670", 41_719),
    "complex": ("075cbaf439456ddb38a4c85a09378ab124434b44", 53_038),
}
_VALIDATION = {
    "color": ("700badf7bd0989c45eb307ff3573f127ecee0a53", 11_871),
    "shape": ("b82835d72b25c2aa2962736f091fe04ee6a39a21", 15_935),
    "texture": ("61d35c8e7127e530f221780fd117c905315ce00a", 14_211),
    "spatial": ("e453b999d311ddc47f303d389db02818b63a256c", 9_213),
    "3d_spatial": ("c799d256a56a68cea3fbc423d79c444c3819cf7a", 7_851),
    "numeracy": ("f9246e9ceb6f58c578534f967108372823762fde", 10_863),
    "non_spatial": ("046d5689c35fb1270fdce8aa003c068e4a360726", 17_750),
    "complex": ("3667f7838c8ae5965ed4bd5bd8c32bff0604344a", 22_724),
}


def _compbench(split: str, files: Mapping[str, tuple[str, int]]) -> tuple[Source, ...]:
    return tuple(
        Source(*_T2I, f"examples/dataset/{name}_{split}.txt", "lines", size, blob, more=(("category", name),))
        for name, (blob, size) in files.items()
    )


SETS: dict[str, PromptSet] = {
    "geneval": PromptSet(
        "MIT",
        "GenEval's records of objects, counts, colours and places; train: Flow-GRPO's, made by its rules",
        {
            "test": (Source(*_GENEVAL, "prompts/evaluation_metadata.jsonl", "records", 85_209,
                            "efc21c7e639cd45554a1e44fac87157211f16d51"),),
            "train": (Source(*_FLOW_GRPO, "dataset/geneval/train_metadata.jsonl", "records", None,
                             "0b97e8a6802c08fc7537cd00c76ae79c851bddcb"),),
            "flow-grpo-test": (Source(*_FLOW_GRPO, "dataset/geneval/test_metadata.jsonl", "records", 340_835,
                                      "27cdaf5cc1356fe15aeadbb8df55682ca74228f0"),),
        },
    ),
    "ocr": PromptSet(
        "MIT", "Flow-GRPO's pictures with a text, which stands in double quotes",
        {
            "test": (Source(*_FLOW_GRPO, "dataset/ocr/test.txt", "lines", 217_565,
                            "8deb4f8d8f2e863f45353354243669b3c991a6a2"),),
            "train": (Source(*_FLOW_GRPO, "dataset/ocr/train.txt", "lines", None,
                             "3ce0521b77b0a9031191d66ecc36ebaaf27a3922"),),
        },
    ),
    "pick-a-pic": PromptSet(
        "not stated by Pick-a-Pic; the files are of flow_grpo, MIT",
        "people's own prompts of Pick-a-Pic v1 with six words or more, each once, as Flow-GRPO split them",
        {
            "test": (Source(*_FLOW_GRPO, "dataset/pickscore/test.txt", "lines", 239_891,
                            "45f05231b969fb5f74c8debd606b22cd3be27f8e"),),
            "train": (Source(*_FLOW_GRPO, "dataset/pickscore/train.txt", "lines", 2_906_730,
                             "a437bd921c03fbc00c4e7ce148ae2d28fcd6e49b"),),
        },
    ),
    "hpdv2": PromptSet(
        "Apache-2.0", "the benchmark of HPSv2 in four styles",
        {
            "test": tuple(
                Source(*_HPD, f"benchmark/{style}.json", "list", size, hub=True, more=(("style", style),))
                for style, size in _STYLES.items()
            ),
        },
    ),
    "drawbench": PromptSet(
        "not stated by Imagen's authors; the file is of HPDv2, Apache-2.0",
        "Imagen's DrawBench, the copy that HPSv2 is measured on",
        {"test": (Source(*_HPD, "benchmark/drawbench.json", "list", 13_600, hub=True),)},
    ),
    "partiprompts": PromptSet(
        "Apache-2.0", "Parti's 1,632 prompts with category and challenge",
        {"test": (Source(*_PARTI, "PartiPrompts.tsv", "tsv", 123_107,
                         "f96e7125a02e48976736179a667b080ba81539fb"),)},
    ),
    "t2i-compbench": PromptSet(
        "MIT", "T2I-CompBench++ in eight categories",
        {"train": _compbench("train", _TRAIN), "test": _compbench("val", _VALIDATION)},
    ),
    "vbench": PromptSet(
        "Apache-2.0", "VBench's 946 prompts of clips with the dimensions that each is for",
        {"test": (Source(*_VBENCH, "vbench/VBench_full_info.json", "vbench", 228_118,
                         "a3a4f0968c1a15f19518903b98d7cca9ef9cbe5a"),)},
    ),
    "video": PromptSet(
        "CC BY-NC 4.0 (VidProM, whose prompts they are); the file is of DanceGRPO, Apache-2.0",
        "50,000 prompts of clips that DanceGRPO chose from VidProM",
        {"train": (Source(*_DANCE, "assets/video_prompts.txt", "lines", 3_839_720,
                          "2a7457f2d7b59ff7915be588de1ddb8fa95c8028"),)},
    ),
}  # fmt: skip
# A dataset that `hub` reads itself, by the name that people call it.
HUB_SETS: dict[str, tuple[str, str, dict[str, str]]] = {
    "hh-rlhf": (
        "MIT", "Anthropic's dialogues with a preferred and another answer",
        {
            f"{part}-{split}": f"hf:Anthropic/hh-rlhf/{part}-base@{split}"
            for part in ("helpful", "harmless") for split in ("train", "test")
        },
    ),
}  # fmt: skip


def split_count(spec: str) -> tuple[str, int | None]:
    """A spec without its "[:N]", and N, None for the whole set. Raises ParetuneError for "[:0]"."""
    match = _COUNT.fullmatch(spec)
    if match is None:
        return spec, None
    if int(match[2]) < 1:
        raise ParetuneError(f"prompt set {spec}: give a number of prompts from 1 up")
    return match[1], int(match[2])


def find_set(spec: str) -> tuple[str, str]:
    """The name and the split of "NAME@SPLIT", with or without "set:". Raises ParetuneError if unknown."""
    name, at, split = split_count(spec)[0].removeprefix(PREFIX).partition("@")
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(f"there is no prompt set {name!r}{hint} (known: {', '.join(SETS)})")
    splits = SETS[name].splits
    if not at and len(splits) == 1:
        return name, next(iter(splits))
    if split not in splits:
        told = f"has no split {split!r}" if split else "has several splits"
        raise ParetuneError(f"prompt set {name} {told}: write set:{name}@ and one of {', '.join(splits)}")
    return name, split
