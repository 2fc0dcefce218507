"""The report of synthetic runs: what the page says and leaves out, and that it needs no network."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from paretune.report import front_figure, write_report
from paretune.report.curves import learning, tax_matrix
from paretune.report.fronts import all_rewards
from paretune.report.gains import (
    Change,
    changes,
    duration,
    headline,
    number,
    paired_changes,
    round_methods,
    shown_methods,
)
from paretune.report.palette import FALL, RISE, method_look
from paretune.report.read import read_run
from paretune.types import ParetuneError

THREE = ("geneval", "ocr", "preference")
FIVE = (*THREE, "symmetry", "contrast")
JUDGES = {"geneval": "vqa", "ocr": "rapidocr", "preference": "preference_judge"}
PROMPTS = ["a sign saying kite", "three red circles", "a <script>alert(1)</script> & a blue square"]


def write_run(
    folder: Path,
    rewards: tuple[str, ...] = THREE,
    rounds: int = 2,
    size: int = 32,
    training: bool = True,
    summary: dict | None = None,
) -> Path:
    """A synthetic run in `folder`, following the contract of a run's files.

    size: of the sample pictures; training: whether metrics and diagnostics were kept; summary: else
    `make_summary`'s.
    """
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("rounds: 2\nrewards: [geneval, ocr, preference]\nseed: 0\n")
    _dump(folder / "plan.json", {"rounds": [{"round": k + 1} for k in range(rounds)]})
    _dump(
        folder / "environment.json", {"python": "3.11", "model_path": "tiny", "gpu": {"count": 0}}
    )
    summary = summary or make_summary(rewards, rounds)
    _dump(folder / "summary.json", summary)
    _write_evaluation(folder / "evaluation.jsonl", summary, rng)
    methods = [name for name in summary["methods"] if name != "mapreduce"]
    _write_samples(folder / "samples", methods, size)
    rooms = [f"round-{k + 1}" for k in range(rounds)]
    for place, stage in enumerate([*rooms, "soup"] if training else []):
        for reward in rewards:
            file = folder / stage / "experts" / reward / "metrics.jsonl"
            _write_metrics(file, place % rounds, rng)
    for k, room in enumerate(rooms if training else []):
        _dump(folder / room / "merged" / "diagnostics.json", _diagnostics(rewards, k))
    return folder


def make_summary(rewards: tuple[str, ...] = THREE, rounds: int = 2) -> dict:
    """A summary.json: each expert gains 0.3 in its own reward and loses 0.04 in the others."""
    base = {reward: 0.4 + 0.03 * index for index, reward in enumerate(rewards)}
    means = {"base": base}
    for own in rewards:
        means[f"expert:{own}"] = {r: v + (0.3 if r == own else -0.04) for r, v in base.items()}
    means["rewarded_soup"] = {r: v + 0.09 + 0.01 * i for i, (r, v) in enumerate(base.items())}
    entries = []
    for k in range(1, rounds + 1):
        gain = 0.24 * (1 - 0.4**k)
        means[f"mapreduce@{k}"] = {
            r: v + gain * (1 - 0.12 * i) for i, (r, v) in enumerate(base.items())
        }
        parent = base if k == 1 else means[f"mapreduce@{k - 1}"]
        experts = {
            o: {r: v + (0.2 if r == o else -0.05) for r, v in parent.items()} for o in rewards
        }
        entry = {"round": k, "means": means[f"mapreduce@{k}"], "stderr": {}, "hypervolume": 0.1 * k}
        entry |= {"spread": 1.2 * 0.6**k, "contraction": 0.6 if k > 1 else None}
        entries.append(entry | {"expert_means": experts})
    means["mapreduce"] = dict(means[f"mapreduce@{rounds}"])
    judges = {reward: JUDGES[reward] for reward in rewards if reward in JUDGES}
    for scores in means.values():
        scores.update({judge: 0.9 * scores[reward] for reward, judge in judges.items()})
    spent = {method: 0 if method == "base" else 3072 * rounds for method in means}
    return {
        "rewards": list(rewards),
        "judges": judges,
        "ranges": {reward: [0, 1] for reward in rewards},
        "methods": means,
        "stderr": {method: dict.fromkeys(scores, 0.011) for method, scores in means.items()},
        "hypervolume": {m: math.prod(s[r] for r in rewards) for m, s in means.items()},
        "reference_point": dict.fromkeys(rewards, 0),
        "rounds": entries,
        "timing": {"map": 312.0, "reduce": 1.4, "evaluate": 61.0, "soup": 160.2, "total": 541.0},
        "budget": spent,
        "seeds": [0],
    }


def cost_summary() -> dict:
    """`make_summary` with ocr, and its judge, as costs: one minus what they are there."""
    summary = make_summary()
    tables = [*summary["methods"].values()]
    tables += [m for entry in summary["rounds"] for m in entry["expert_means"].values()]
    for means in tables:
        for name in {"ocr", "rapidocr"} & means.keys():
            means[name] = 1 - means[name]
    names = summary["methods"]["base"]
    summary["higher_is_better"] = {name: name not in {"ocr", "rapidocr"} for name in names}
    return summary


def _dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _write_evaluation(path: Path, summary: dict, rng: random.Random) -> None:
    """Rows whose means are the summary's; within rounds, experts saw only the first two prompts."""
    rows = []
    measured = {(name, None): means for name, means in summary["methods"].items()}
    del measured["mapreduce", None]  # the summary's name for the last round
    for entry in summary["rounds"]:
        measured[f"mapreduce@{entry['round']}", entry["round"]] = entry["means"]
        del measured[f"mapreduce@{entry['round']}", None]
        for own, means in entry["expert_means"].items():
            measured[f"round-{entry['round']}:{own}", entry["round"]] = means
    for (method, step), means in measured.items():
        for reward, mean in means.items():
            away = rng.gauss(0, 0.02)
            row = {"method": method, "round": step, "preference": [1.0], "prompt_set": "ocr"}
            row |= {"seed": 0, "reward": reward, "kind": "reward"}
            for prompt, offset in zip(PROMPTS, (-0.1 + away, 0.1 - away, 0.0), strict=True):
                if offset or not method.startswith("round-"):
                    rows.append(row | {"prompt": prompt, "value": mean + offset})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_metrics(path: Path, place: int, rng: random.Random) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        for update in range(1, 33):
            reward = 0.4 + 0.12 * place + 0.2 * (1 - math.exp(-update / 12)) + rng.gauss(0, 0.02)
            row = {"update": update, "reward": reward, "reward_std": 0.2, "kl": 1e-4 * update}
            row |= {"loss": 0.1, "grad_norm": 1.0, "seconds": 4.6}
            row |= {"seconds_sample": 1.9, "seconds_score": 0.3, "seconds_train": 2.4}
            file.write(json.dumps(row) + "\n")


def _diagnostics(rewards: tuple[str, ...], k: int) -> dict:
    several = range(len(rewards))
    cosines = [[1.0 if i == j else 0.15 * (i + j) - 0.3 for j in several] for i in several]
    count = len(rewards)
    return {
        "rewards": list(rewards),
        "weights": [1 / count] * count,
        "gram": cosines,
        "cosines": cosines,
        "norms": [1.0] * count,
        "spread": 1.2 * 0.6**k,
        "contraction": 0.6 if k else None,
        "compression_error": 0.0,
        "method": "exact",
    }


def _write_samples(folder: Path, methods: list[str], size: int) -> None:
    prompts = [{"set": "ocr", "index": i, "text": text} for i, text in enumerate(PROMPTS)]
    _dump(folder / "index.json", {"prompts": prompts, "methods": methods})
    for place, method in enumerate(methods):
        (folder / method).mkdir()
        for entry in prompts:
            picture = Image.new(
                "RGB", (size, size), (60 + 30 * place, 90, 200 - 40 * entry["index"])
            )
            picture.paste((250, 240, 90), (size // 4, size // 4, size // 2, size // 2))
            picture.save(folder / method / f"ocr-{entry['index']:03d}.png")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "whole")
    assert write_report(folder) == folder / "report.html"
    return folder


def _page(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_page_has_every_section_and_asks_for_nothing_from_outside(whole: Path) -> None:
    page = _page(whole)
    for section in ("methods", "fronts", "tax", "learning", "contraction", "samples", "timing",
                    "budget", "recipe", "environment"):  # fmt: skip
        assert f'id="{section}"' in page
    assert 'id="missing"' not in page
    assert not re.findall(r"https?://", page)
    targets = re.findall(r'(?:src|href)="([^"]{1,40})', page) + re.findall(
        r"url\(([^)]{1,40})", page
    )
    assert targets
    assert all(target.startswith(("#", "data:image/")) for target in targets)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_every_plot_is_also_a_file(whole: Path) -> None:
    names = set(re.findall(r'id="plot-([^"]*)"', _page(whole)))
    expected = {f"front-{pair}" for pair in ("geneval-ocr", "geneval-preference", "ocr-preference")}
    expected |= {"front-all", "hypervolume", "tax", "tax-round-1", "tax-round-2", "contraction"}
    expected |= {"cosines-round-1", "cosines-round-2", "timing", "budget"}
    expected |= {f"learning-{reward}" for reward in THREE}
    assert names == expected
    files = {path.name for path in (whole / "plots").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_prompts_are_escaped_and_pictures_are_kept_crisp(whole: Path) -> None:
    page = _page(whole)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; a blue square" in page
    assert page.count('class="pixels"') == 3 * 7


def test_headline_for_literal_numbers() -> None:
    rose = Change("geneval", 0.5, 0.68, 0.012)
    fell = Change("ocr", 0.4, 0.3, 0.02)
    flat = Change("taste", -0.2, -0.19, 0.01)
    assert headline([rose]) == "The reward rose: geneval +36.0% (+0.180 ± 0.012)."
    assert headline([rose, rose]).startswith("Both rewards rose: geneval")
    assert headline([rose, rose, rose]).startswith("All three rewards rose: ")
    assert headline([rose, fell, flat]) == (
        "One of three rewards rose: geneval +36.0% (+0.180 ± 0.012); "
        "fell: ocr \N{MINUS SIGN}25.0% (\N{MINUS SIGN}0.100 ± 0.020); "
        "within two standard errors of no change: taste +0.010 ± 0.010."
    )
    assert headline([flat, fell], "soup").startswith("soup: None of two rewards rose; fell: ocr")


def test_errors_are_paired_where_the_table_allows_and_else_add_in_squares() -> None:
    summary = {
        "methods": {"base": {"ocr": 0.5}, "mapreduce": {"ocr": 0.7}},
        "stderr": {"base": {"ocr": 0.03}, "mapreduce": {"ocr": 0.04}},
    }
    (change,) = changes(summary, [], "mapreduce", ["ocr"])
    assert change.stderr == pytest.approx(0.05)
    rows = [
        {"method": method, "round": last, "preference": [1.0], "prompt": prompt, "prompt_set": "s",
         "seed": 0, "reward": "ocr", "value": value}
        for method, last, values in (("base", None, (0.2, 0.8)), ("mapreduce", 1, (0.5, 0.9)))
        for prompt, value in zip("ab", values, strict=True)
    ]  # fmt: skip
    (change,) = changes(summary, rows, "mapreduce", ["ocr"])
    assert change.stderr == pytest.approx(0.1)  # differences 0.3 and 0.1
    assert change.absolute == pytest.approx(0.2)
    (same,) = paired_changes(rows, "base", "mapreduce@1")
    assert same == change
    grid = [{**row, "value": 0.1, "lattice": True} for row in rows[2:]]  # of a menu, at other preferences
    assert changes(summary, rows + grid, "mapreduce", ["ocr"]) == [same]
    (change,) = changes(summary, rows[:2] + rows[3:], "mapreduce", ["ocr"])  # another evaluation
    assert change.stderr == pytest.approx(0.05)


def test_methods_are_in_reading_order_and_the_last_round_appears_once() -> None:
    summary = make_summary()
    assert round_methods(summary) == ["base", "mapreduce@1", "mapreduce"]
    assert shown_methods(summary) == ["base", "expert:geneval", "expert:ocr", "expert:preference",
                                      "rewarded_soup", "mapreduce@1", "mapreduce"]  # fmt: skip


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0.12345, 12.345, 345.67, -1.0, None, math.nan)] == [
        "0.123", "12.35", "345.7", "\N{MINUS SIGN}1.000", "\N{EN DASH}", "\N{EN DASH}",
    ]  # fmt: skip
    assert [duration(s) for s in (1.42, 59, 95, 7322)] == [
        "1.4 s",
        "59 s",
        "1 min 35 s",
        "2 h 02 min",
    ]


def test_missing_parts_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("rounds: 2\n")
    _write_metrics(tmp_path / "round-1/experts/ocr/metrics.jsonl", 0, random.Random(0))
    with (tmp_path / "round-1/experts/ocr/metrics.jsonl").open("a") as file:
        file.write('{"update": 33, "rew')
    write_report(tmp_path)
    page = _page(tmp_path)
    for words in ("summary.json is not there", "no samples", "its last line is cut off",
                  "round-1/merged/diagnostics.json", "has not been evaluated yet"):  # fmt: skip
        assert words in page
    assert 'id="plot-learning-ocr"' in page
    assert 'id="fronts"' not in page


def test_damaged_files_and_empty_folders_are_refused_with_their_name(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="holds no run"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"rewards": ')
    with pytest.raises(ParetuneError, match=r"summary\.json is damaged"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"rewards": ["ocr"]}')
    with pytest.raises(ParetuneError, match="no 'methods'"):
        write_report(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "evaluation.jsonl").write_text("{}\nnot\n{}\n")
    with pytest.raises(ParetuneError, match=r"evaluation\.jsonl, line 2 is not JSON"):
        read_run(tmp_path)


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(("rewards", "pairs"), [(THREE[:2], 1), (FIVE, 10)])
def test_two_and_five_rewards(tmp_path: Path, rewards: tuple[str, ...], pairs: int) -> None:
    write_run(tmp_path, rewards, rounds=1, size=400, training=False)
    write_report(tmp_path)
    page = _page(tmp_path)
    assert len(re.findall(r'id="plot-front-(?!all)', page)) == pairs
    assert "data:image/jpeg" in page
    assert ("Both" if len(rewards) == 2 else "All five") + " rewards rose" in page


class TestCost:
    """One reward, ocr, is a cost: less is better, on the page and in every plot."""

    @pytest.fixture(scope="class")
    @classmethod
    def page(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        folder = tmp_path_factory.mktemp("runs") / "cost"
        write_run(folder, summary=cost_summary())
        write_report(folder)
        return _page(folder)

    def test_the_words_say_better_and_worse(self, page: str) -> None:
        (sentence,) = re.findall(r'<h1 class="good">(.*?)</h1>', page)
        assert sentence.startswith("All three rewards improved: geneval +")
        assert "ocr \N{MINUS SIGN}" in sentence
        assert re.search(r"Independent judges.*; 3 of 3 improved\.", page)
        assert "expert geneval worsens ocr (+0.040) and preference (\N{MINUS SIGN}0.040)" in page

    def test_the_best_of_a_column_is_its_least(self, page: str) -> None:
        assert page.count("<small>reward, lower is better</small>") == 1
        assert page.count("<small>judge of ocr, lower is better</small>") == 1
        rows = re.findall(r"<tr[^>]*><th>.*?</th>\n(.*?)</tr>", page, re.DOTALL)
        best = {cell for row in rows for cell in re.findall(r'<td class="best"><b>(.*?)</b>', row)}
        # geneval 0.4 + 0.3, ocr 1 - 0.43 - 0.3, its judge 1 - 0.9 * 0.73
        assert {"0.700", "0.270", "0.343"} <= best
        # The greatest: of ocr 1 - 0.43 + 0.04, of its judge 1 - 0.9 * 0.39.
        assert not {"0.610", "0.649"} & best

    def test_colours_of_the_tax_matrix_are_gains_and_its_numbers_changes(self) -> None:
        found = changes(cost_summary(), [], "expert:ocr", THREE)
        figure = tax_matrix([("expert ocr", found)], THREE)
        cells = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
        assert [to_hex(cell.get_facecolor()) for cell in cells] == [FALL, RISE, FALL]
        texts = [text.get_text().split("\n")[0] for text in figure.axes[0].texts]
        fell = "\N{MINUS SIGN}0.040"
        assert texts == [fell, "\N{MINUS SIGN}0.300", fell]

    def test_up_and_right_is_better_in_the_fronts(self) -> None:
        summary = cost_summary()
        left, middle, right = front_figure(summary).axes  # the pairs, ocr second in one, first in another
        assert [a.xaxis.get_inverted() for a in (left, middle, right)] == [False, False, True]
        assert [a.yaxis.get_inverted() for a in (left, middle, right)] == [True, False, False]
        assert left.get_ylabel() == "ocr (lower is better)  →"
        assert left.get_xlabel() == "geneval  →"
        axes = all_rewards(summary).axes[0]
        (line,) = [
            line for line in axes.lines
            if line.get_color() == method_look("expert:ocr", THREE).color and line.get_linestyle() == "-"
        ]
        assert line.get_ydata() == pytest.approx([-0.04 / 0.3, 1, -0.04 / 0.3])
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels == ["geneval", "ocr\n(lower is better)", "preference"]

    def test_a_summary_without_directions_means_higher_is_better(self) -> None:
        (change,) = changes(make_summary(), [], "expert:ocr", ["ocr"])
        assert change.higher_is_better
        assert change.verdict == "better"


def test_front_figure_has_one_panel_a_pair() -> None:
    assert len(front_figure(make_summary()).axes) == 3
    assert len(front_figure(make_summary(THREE[:2])).axes) == 1


def test_a_token_looks_unlike_its_expert_and_unlike_all_tokens() -> None:
    rewards = ["a", "b", "c", "d", "e", "f"]
    for reward in rewards:
        expert, token = (method_look(f"{kind}:{reward}", rewards) for kind in ("expert", "rate"))
        assert expert.color == token.color
        assert expert.marker != token.marker
    assert method_look("rate", rewards).label == "RaTE, all tokens"
    assert method_look("x rate", rewards).label == "x RaTE, all tokens"


@pytest.mark.parametrize(("kl", "panels"), [(0.02, ["", "epoch"]), (0.0, ["epoch"]), (None, ["epoch"])])
def test_a_kl_that_nobody_paid_is_not_drawn_as_zero(
    tmp_path: Path, kl: float | None, panels: list[str]
) -> None:
    folder = write_run(tmp_path)
    for file in folder.rglob("experts/ocr/metrics.jsonl"):
        rows = [{**json.loads(line), "kl": kl} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    axes = learning(read_run(folder), "ocr").axes
    assert [one.get_xlabel() for one in axes] == panels
    assert [one.get_ylabel() for one in axes][1:] == ["KL"][: len(panels) - 1]
