"""`paretune analyse` on tiny language models: pairs, a run with its page, safety."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from paretune.adapters.store import save_delta
from paretune.commands.analyse.make import analyse
from paretune.commands.analyse.measured import measure, read_lists
from paretune.commands.analyse.options import Asked
from paretune.commands.analyse.sides import open_sides
from paretune.ops.lowrank import LowRank
from paretune.types import ParetuneError, Prompt
from tests.language import language_recipe, make_llama
from tests.made_run import make_texts_run

from .commands import call

PAIRS = [
    {"prompt": "fix the table", "chosen": "yes soap", "rejected": "no", "source": "x"},
    {"prompt": "tell me please", "answers": [
        {"text": "yes", "source": "a", "scores": {"q": 2.0}}, {"text": "water a", "source": "b"},
        {"text": "wait wait day", "source": "b", "scores": {"q": 0.0}},
    ]},
    {"prompt": "clean the window", "chosen": "a cloth", "rejected": "water"},
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return path


@pytest.fixture(scope="module")
def opened(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model by a recipe, which says how long its answers are."""
    return str(language_recipe(tmp_path_factory.mktemp("opened"), tiny_llama))


def adapter(folder: Path, base: Path) -> str:
    generator = torch.Generator().manual_seed(1)
    b, a = torch.randn(16, 2, generator=generator), torch.randn(2, 16, generator=generator)
    folder.mkdir(parents=True)
    save_delta(folder, {"model.layers.0.self_attn.q_proj": LowRank(b, a)}, str(base), {}, None)
    return str(folder)


def test_the_start_compared_with_itself_has_no_change(opened: str, pairs: Path, tmp_path: Path) -> None:
    asked = Asked(model=opened, reference=opened)
    found = analyse("pairs", str(pairs), asked, tmp_path / "a.json")["reports"]
    assert found["rankings"]["reward accuracy"]["value"] == 0.0
    ranked = found["rankings"]
    assert ranked["ranking accuracy, sums"] == ranked["ranking accuracy of the reference"]
    assert found["3D"]["change of a token's log-probability, chosen"]["value"] == 0.0
    assert found["3D"]["change of a token's log-probability, unseen"]["count"] == 1  # the list's middle
    assert found["length"]["rank correlation of length and margin"]["count"] == 1
    assert found["separability"]["accuracy, sides"]["count"] == 6
    assert "accuracy, sources unnamed and a" in found["separability"] or any(
        name.startswith("accuracy, sources") for name in found["separability"]
    )
    kept = json.loads((tmp_path / "a.json").read_text())["analyses"]
    assert kept[f"pairs {pairs.name}, reference recipe.yaml"]["reports"] == found


def test_an_adapter_is_compared_with_its_base_and_credits_add_up(
    tiny_llama: Path, opened: str, pairs: Path, tmp_path: Path
) -> None:
    asked = Asked(model=opened, adapter=adapter(tmp_path / "lora", tiny_llama), beta=0.5)
    found = analyse("pairs", str(pairs), asked, tmp_path / "a.json")
    first, second = found["tokens"][:2]
    assert first["tokens"] == ["yes", "soap", "</s>"]
    assert first["sum"] == pytest.approx(sum(first["credit"]), abs=1e-5)
    better = found["reports"]["tokens"]["implicit reward, better answers"]["value"]
    sums = [found["tokens"][i]["sum"] for i in (0, 2, 4)]
    assert better == pytest.approx(sum(sums) / 3, abs=1e-5)
    assert second["sum"] != 0
    told = call("analyse", "pairs", pairs, "--model", opened, "--adapter", asked.adapter, "--beta", "0.5",
                "--out", tmp_path / "b.json")  # fmt: skip
    assert f"{first['sum']:+.3f}  yessoap</s>" in told.stdout


def test_records_with_one_answer_are_counted(opened: str, pairs: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.jsonl"
    alone.write_text(pairs.read_text() + '{"prompt": "fix", "answers": [{"text": "yes"}]}\n')
    done = call("analyse", "pairs", alone, "--model", opened, "--reference", opened)
    assert f"note: {alone}: 1 of 4 records have one answer and are left out" in " ".join(done.stderr.split())


def test_what_cannot_be_compared_is_one_line(opened: str, pairs: Path, tmp_path: Path) -> None:
    def fault(asked: Asked, file: Path = pairs) -> str:
        with pytest.raises(ParetuneError) as caught:
            analyse("pairs", str(file), asked, tmp_path / "a.json")
        assert not (tmp_path / "a.json").exists()
        return str(caught.value)

    assert "has nothing to be compared with: give --adapter" in fault(Asked(model=opened))
    other = make_llama(tmp_path / "other", words=("yes", "no", "fix"))
    assert "has another tokenizer" in fault(Asked(model=opened, reference=str(other)))
    assert "there is no model nothing" in fault(Asked(model="nothing", reference=str(other)))
    (tmp_path / "one.jsonl").write_text('{"prompt": "fix", "answers": [{"text": "yes"}]}\n')
    told = fault(Asked(model=opened, reference=opened), tmp_path / "one.jsonl")
    assert told == "no record of the file has two answers to compare"


def test_a_share_is_that_of_voters_else_of_the_margin_else_three_quarters(opened: str) -> None:
    pair = {"chosen": "yes", "rejected": "no"}
    records = [{**pair, "share": 0.6, "margin": 2.0}, {**pair, "margin": 2.0}, pair]
    lists = read_lists([Prompt("fix the table", record) for record in records])
    side = open_sides(opened, opened, None)[0]
    found = measure(lists, side, side)
    assert found.share.tolist() == pytest.approx([0.6, 0.8808, 0.75], abs=5e-5)


def test_safety_of_a_model_by_a_reward_and_by_phrases(opened: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "fix the table", "topic": "a"}, {"prompt": "tell me please", "harmful": False}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = Asked(prompts=prompts, judge=f"{Path(opened).parent / 'rewards.py'}:yes", threshold=2.0, count=3)
    found = analyse("safety", opened, asked, tmp_path / "s.json")["reports"]
    (figures,) = found.values()
    named = {name: (f["value"], f["count"]) for name, f in figures.items()}
    assert named[f"attack success ({asked.judge})"] == (1.0, 3)  # no share of words is 2
    assert named["attack success, topic a"] == (1.0, 3)
    assert named["over-refusal (phrases)"] == (0.0, 3)
    asked = Asked(prompts=prompts)
    (figures,) = analyse("safety", opened, asked, tmp_path / "p.json")["reports"].values()
    assert figures["attack success (phrases)"]["value"] == 1.0  # the tiny model knows no refusal


def test_safety_of_an_adapter_over_a_model(tiny_llama: Path, opened: str, tmp_path: Path) -> None:
    prompts, lora = tmp_path / "prompts.jsonl", adapter(tmp_path / "lora", tiny_llama)
    prompts.write_text('{"prompt": "fix the table"}\n')
    made = tmp_path / "answers.txt"
    (tmp_path / "judge.py").write_text(
        "from pathlib import Path\ndef kept(texts, prompts):\n"
        f"    Path({str(made)!r}).write_text('|'.join(texts))\n    return [1.0 for _ in texts]\n"
    )
    told: list[str] = []
    for name, given in (("plain", None), ("changed", lora)):
        asked = Asked(prompts=prompts, judge=f"{tmp_path / 'judge.py'}:kept", count=4, adapter=given)
        (report,) = analyse("safety", opened, asked, tmp_path / f"{name}.json")["reports"]
        assert report == f"safety of {opened}" + f" with {lora}" * (name == "changed")
        told.append(made.read_text())
    assert told[0] != told[1]


@pytest.mark.filterwarnings("ignore:constrained_layout")
def test_a_run_tells_lengths_kl_and_what_its_experts_learned(
    tiny_llama: Path, pairs: Path, tmp_path: Path
) -> None:
    path = language_recipe(
        tmp_path, tiny_llama, rounds=1, objective={"name": "list_dpo"},
        train={"epochs": 1, "updates_per_epoch": 1, "learning_rate": 0.05}, evaluate={"prompts": 1},
    )  # fmt: skip
    raw = yaml.safe_load(path.read_text())
    raw["rewards"] = {"yes": {**raw["rewards"]["yes"], "prompts": str(pairs)}}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    done = call("run", path, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = analyse("run", str(tmp_path / "run"), Asked())["reports"]
    assert {"answers of base", "answers of expert:yes", "answers of merged"} <= found.keys()
    assert found["answers of base"]["KL to the base, an answer"]["value"] == 0.0
    assert found["answers of merged"]["tokens of an answer"]["count"] == 3
    assert "rankings: expert:yes on the pairs of yes" in found
    assert "separability: merged on the pairs of yes" in found
    page = (tmp_path / "run" / "report.html").read_text()
    assert "what each one of an answer is credited with" in page
    assert 'class="credits"' in page
    assert "What was learned of the preferences" in page
    assert "rankings: expert:yes on the pairs of yes" in page
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "fix the table"}\n')
    safe = analyse("safety", str(tmp_path / "run"), Asked(prompts=prompts))
    general = {f"general rewards, {name}" for name in ("base", "merged", "merged less base")}
    assert safe["reports"].keys() == {"safety of base", "safety of merged"} | general
    own, summary = safe["reports"], json.loads((tmp_path / "run" / "summary.json").read_text())
    before, after = (own[f"general rewards, {name}"]["yes"]["value"] for name in ("base", "merged"))
    assert after == pytest.approx(summary["methods"]["mapreduce"]["yes"], abs=1e-6)
    assert own["general rewards, merged less base"]["yes"]["value"] == pytest.approx(after - before)
    assert own["general rewards, base"]["yes"]["low"] is None  # one held-out prompt has no interval
    kept = json.loads((tmp_path / "run" / "analysis.json").read_text())["analyses"]
    assert kept.keys() == {"run", "safety prompts.jsonl"}
    own = analyse("pairs", str(pairs), Asked(model=str(tmp_path / "run")))
    assert own["file"] == str(tmp_path / "run" / "analysis.json")
    kept = json.loads((tmp_path / "run" / "analysis.json").read_text())["analyses"]
    assert kept.keys() == {"run", "safety prompts.jsonl", f"pairs {pairs.name}"}
    assert f"<summary>rankings: {pairs.name}</summary>" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_learned_no_pairs_tells_its_answers_alone(tiny_llama: Path, tmp_path: Path) -> None:
    """GRPO reads the prompts of a set of conversations, whose last turns are answers and no pairs."""
    run = make_texts_run(tmp_path / "run", tiny_llama)
    talks = tmp_path / "talks.jsonl"
    talks.write_text('{"prompt": "fix the table", "chosen": "yes"}\n')
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    for own in recipe["rewards"].values():
        own["prompts"] = str(talks)
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ParetuneError, match="--beta changes nothing with a run that learned no pairs"):
        analyse("run", str(run), Asked(beta=0.5))
    with pytest.raises(ParetuneError, match="run is a run, which has its own: leave it out"):
        analyse("safety", str(run), Asked(prompts=talks, adapter="a"))
    found = analyse("run", str(run), Asked(limit=2), tmp_path / "a.json")["reports"]
    assert found.keys() == {f"answers of {name}" for name in ("base", "expert:yes", "expert:no", "merged")}
