"""Sampling: what a request may say, that a picture is its request's alone, and what is left in the folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from paretune.commands.measure import score_folder
from paretune.samples.stamped import grid, read_settings
from paretune.sampling import Request, Sampler
from paretune.sampling.command import sample_folder
from paretune.sampling.request import normalised, read_preference, read_prompt, read_seed
from paretune.sampling.source import open_source
from paretune.types import ParetuneError
from tests.made_run import make_run, make_tokens, open_trusted, sample_trusted

ASK = Request("a red circle", "mapreduce", (0.7, 0.3), seed=5)


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", tiny_sd3)


@pytest.fixture(scope="module")
def sampler(run: Path) -> Sampler:
    return Sampler(open_trusted(str(run)))


# ---------------------------------------------------------------- words


def test_a_preference_is_read_in_the_order_of_the_rewards() -> None:
    assert read_preference("beauty=0.3 ocr=0.7", ("ocr", "beauty", "count")) == pytest.approx((0.7, 0.3, 0))
    assert read_preference("ocr=2,beauty=6", ("ocr", "beauty")) == (0.25, 0.75)
    assert read_preference("ocr=1e308 beauty=1e308", ("ocr", "beauty")) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ocr", "is not REWARD=WEIGHT"),
        ("ocrr=1", "did you mean 'ocr'"),
        ("ocr=nan", "is nan"),
        ("ocr=inf", "is inf"),
        ("ocr=-1 beauty=2", "is -1"),
        ("ocr=0 beauty=0", "all zero"),
        ("", "all zero"),
        ("ocr=x", "is no number: 'x'"),
        ("ocr=1 ocr=2", "twice"),
    ],
)
def test_a_wrong_preference_is_one_line(text: str, told: str) -> None:
    with pytest.raises(ParetuneError, match=told) as raised:
        read_preference(text, ("ocr", "beauty"))
    assert "\n" not in str(raised.value)


def test_so_many_weights_as_rewards() -> None:
    with pytest.raises(ParetuneError, match="1 weights for the 2 rewards"):
        normalised([1.0], ("ocr", "beauty"))


@pytest.mark.parametrize(
    ("text", "told"),
    [("  ", "empty"), ("x" * 10_000, "10,000 characters"), ("a\x07b", r"U\+0007"), ("a\nb", r"U\+000A"),
     ("\ud800", r"U\+D800")],
)  # fmt: skip
def test_a_wrong_prompt_is_reported(text: str, told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        read_prompt(text)


def test_a_prompt_may_hold_markup_and_any_script() -> None:
    assert read_prompt(" <b>ein Schild: «日本» 👩‍🚀</b> ") == "<b>ein Schild: «日本» 👩‍🚀</b>"


@pytest.mark.parametrize("seed", [-1, 1.5, float("nan"), None, 2**63])
def test_a_wrong_seed_is_reported(seed: float | None) -> None:
    with pytest.raises(ParetuneError, match="whole number"):
        read_seed(seed)


# ---------------------------------------------------------------- pictures


def test_the_first_pictures_of_more_are_those_of_fewer(sampler: Sampler) -> None:
    many = sampler.draw(ASK, 8)
    assert torch.equal(sampler.draw(ASK, 4), many[:4])
    assert len({picture.numpy().tobytes() for picture in many}) == 8


def test_each_part_of_a_request_changes_the_picture(sampler: Sampler) -> None:
    asked = [
        ASK, replace(ASK, seed=6), replace(ASK, preference=(0.3, 0.7)), replace(ASK, method="mix"),
        replace(ASK, method="base", preference=None), replace(ASK, prompt="two blue squares"),
    ]  # fmt: skip
    assert len({sampler.draw(request).numpy().tobytes() for request in asked}) == len(asked)


def test_no_request_leaves_anything_behind(sampler: Sampler) -> None:
    before = {name: value.clone() for name, value in sampler.policy.transformer.state_dict().items()}
    sampler.draw(ASK, 2)
    after = sampler.policy.transformer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_even_preference_is_the_final_model(sampler: Sampler) -> None:
    """The family's member at the recipe's weights: the same sum in another order, so to a level of 255."""
    even = sampler.draw(replace(ASK, preference=(0.5, 0.5))).int()
    assert (even - sampler.draw(replace(ASK, preference=None)).int()).abs().max() <= 1


def test_a_preference_for_one_reward_is_its_expert(run: Path, sampler: Sampler) -> None:
    mixed = sampler.source.mixed(Request("x", "mix", (0.0, 1.0)))
    assert mixed.adapters == ("soup/experts/dark",)
    last = sampler.source.mixed(Request("x", "mapreduce", (0.0, 1.0)))
    assert last.adapters == ("round-1/merged", "round-2/experts/dark")


def test_a_runs_pictures_take_the_recipes_threads(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    encode = sampler.policy.encode
    monkeypatch.setattr(
        sampler.policy, "encode", lambda *a: (seen.append(torch.get_num_threads()), encode(*a))[1]
    )
    try:
        sampler.draw(ASK)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_threads_never_see_each_others_preference(sampler: Sampler) -> None:
    asked = [replace(ASK, preference=(share, 1 - share)) for share in (1.0, 0.0)]
    alone = [sampler.draw(request) for request in asked]
    seen: list[list[torch.Tensor]] = [[], []]

    def ask(who: int) -> None:
        seen[who] += [sampler.draw(asked[who]) for _ in range(8)]

    threads = [threading.Thread(target=ask, args=(who,)) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(pictures) for pictures in seen] == [8, 8]
    assert all(torch.equal(p, alone[who]) for who in (0, 1) for p in seen[who])
    assert not torch.equal(alone[0], alone[1])


def test_a_run_without_a_soup_mixes_the_first_round(tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3, methods=["mapreduce"])
    mixed = open_trusted(str(run)).mixed(Request("x", "mix"))
    assert mixed.adapters == ("round-1/experts/red", "round-1/experts/dark")
    assert mixed.scales == (0.5, 0.5)


def test_a_damaged_expert_is_named(tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    weights = run / "soup/experts/red/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    sampler = Sampler(open_trusted(str(run)))
    with pytest.raises(ParetuneError, match=r"soup/experts/red.*was changed or damaged"):
        sampler.draw(replace(ASK, method="mix"))


def test_reward_tokens_by_preference_and_by_hand(tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    make_tokens(run, tiny_sd3)
    sampler = Sampler(open_trusted(str(run)))
    assert sampler.source.methods == ("mapreduce", "mix", "rate", "base")
    rate = Request("a red circle", "rate", (0.25, 0.75), seed=5)
    by_hand = Request("a red circle", "base", None, 5, f"red@{1 / 3!r} dark")
    assert torch.equal(sampler.draw(rate), sampler.draw(by_hand))
    assert sampler.settings(by_hand)["tokens"] == f"red@{1 / 3!r} dark"
    base, other = Request("a red circle", "base", None, 5), replace(ASK, tokens="dark:2@-1")
    pictures = [sampler.draw(request) for request in (rate, base, ASK, other)]
    assert len({picture.numpy().tobytes() for picture in pictures}) == 4
    named = replace(rate, preference=None, tokens="red")
    assert torch.equal(sampler.draw(named), sampler.draw(replace(base, tokens="red")))
    with pytest.raises(ParetuneError, match="preference or by name"):
        sampler.source.mixed(replace(rate, tokens="red"))
    with pytest.raises(ParetuneError, match="preference or by name"):
        sample_trusted(str(run), ["a red circle"], tmp_path / "out", "red=1", "rate", "red")
    for tokens, told in {"rde": "rde", "red@nan": "scale", "red:0": "count", "red@@": "scale"}.items():
        with pytest.raises(ParetuneError, match=told):
            sampler.source.mixed(replace(base, tokens=tokens))


# ---------------------------------------------------------------- the folder


def test_the_same_seed_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    tables = [
        sample_trusted(str(run), ["a red circle", "a sign saying kite"], tmp_path / name, "red=1", count=n)
        for name, n in (("a", 2), ("b", 2), ("c", 3))
    ]
    assert tables[0] == tables[1]
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 7
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    pictures = sorted((tmp_path / "a" / "pictures").iterdir())
    assert all(p.read_bytes() == (tmp_path / "c" / "pictures" / p.name).read_bytes() for p in pictures)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_picture_carries_its_settings(run: Path, tmp_path: Path) -> None:
    sample_trusted(str(run), ["a red circle"], tmp_path / "out", "red=3 dark=1", "mix", count=2, seed=9)
    told = read_settings(tmp_path / "out/pictures/000-001.png")
    assert told["preference"] == {"red": 0.75, "dark": 0.25}
    assert (told["prompt"], told["method"], told["seed"], told["index"]) == ("a red circle", "mix", 9, 1)
    assert [a["folder"] for a in told["adapters"]] == ["soup/experts/red", "soup/experts/dark"]
    with Image.open(tmp_path / "out/grid.png") as image:
        assert image.size == (2 * 136, 136)
    Image.new("RGB", (2, 2)).save(tmp_path / "bare.png")
    with pytest.raises(ParetuneError, match="carries no settings"):
        read_settings(tmp_path / "bare.png")


def test_scores_are_those_of_the_saved_pictures(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = sample_trusted(str(run), ["a red circle", "anything"], out, count=2)
    config = open_trusted(str(run)).config
    assert config is not None
    for reward, own in config.rewards.items():
        rows = score_folder(own.reward, out / "pictures", str(out / "prompts.jsonl"))
        assert [row["value"] for row in rows] == [p["scores"][reward] for p in table["pictures"]]
        assert rows[2]["prompt"] == "anything"


def test_a_model_draws_its_base(run: Path, tiny_sd3: Path, tmp_path: Path) -> None:
    table = sample_folder(str(tiny_sd3), ["a red circle"], tmp_path / "m", steps=3, guidance=1.0)
    sample_trusted(str(run), ["a red circle"], tmp_path / "r", method="base")
    assert table["pictures"][0]["scores"] == {}
    bits = [torch.frombuffer(bytearray(_pixels(tmp_path / d)), dtype=torch.uint8) for d in "mr"]
    assert torch.equal(*bits)


def _pixels(out: Path) -> bytes:
    with Image.open(out / "pictures/000-000.png") as image:
        return image.tobytes()


def test_a_grid_enlarges_small_pictures_only() -> None:
    assert grid([torch.zeros(3, 3, 32, 32, dtype=torch.uint8)] * 2).shape == (3, 2 * 136, 3 * 136)
    assert grid([torch.zeros(1, 3, 200, 300, dtype=torch.uint8)]).shape == (3, 208, 308)


def test_mistakes_are_reported_before_a_model_is_loaded(
    run: Path, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.sampling.sampler.open_policy", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "there").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("name: x\n")
    out, text = tmp_path / "out", ["a red circle"]
    wrong: dict[str, Callable[[], object]] = {
        "exists; give a new folder": lambda: sample_trusted(str(run), text, tmp_path / "there"),
        "prompt is empty": lambda: sample_trusted(str(run), [""], out),
        "unknown reward 'rde'.*did you mean 'red'": lambda: sample_trusted(str(run), text, out, "rde=1"),
        "unknown method 'mixx'.*did you mean 'mix'":
            lambda: sample_trusted(str(run), text, out, None, "mixx"),
        "no reward tokens; ": lambda: sample_trusted(str(run), text, out, None, "rate"),
        "no reward tokens; .paretune tokens": lambda: sample_trusted(str(run), text, out, tokens="red"),
        "has no reward tokens$": lambda: sample_folder(str(tiny_sd3), text, out, tokens="red"),
        "give one of them": lambda: sample_trusted(str(run), text, out, "red=1", "rate", "red"),
        "base has no preference": lambda: sample_trusted(str(run), text, out, "red=1", "base"),
        "-n must be": lambda: sample_trusted(str(run), text, out, count=0),
        "seed must be": lambda: sample_trusted(str(run), text, out, seed=-1),
        "--steps must be": lambda: sample_trusted(str(run), text, out, steps=1),
        "--guidance must be": lambda: sample_trusted(str(run), text, out, guidance=float("nan")),
        "--guidance must be .*, not 1e.300": lambda: sample_trusted(str(run), text, out, guidance=1e300),
        "holds no finished run": lambda: sample_folder(str(tmp_path / "begun"), text, out),
        "neither a run": lambda: sample_folder(str(tmp_path / "empty"), text, out),
        "no run or model": lambda: sample_folder(str(tmp_path / "nowhere"), text, out),
        "has only the method base": lambda: sample_folder(str(tiny_sd3), text, out, None, "mix"),
        "no rewards to prefer": lambda: sample_folder(str(tiny_sd3), text, out, "red=1"),
    }
    for told, call in wrong.items():
        with pytest.raises(ParetuneError, match=told):
            call()
    assert not out.exists()


def test_a_place_where_no_folder_can_be_is_reported_before_drawing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.sampling.command.open_source", lambda _: pytest.fail("a model was opened"))
    (tmp_path / "file").touch()
    above = sorted(p.name for p in tmp_path.iterdir())
    for out in (tmp_path / "file/out", tmp_path / "file/a/b", tmp_path / ("x" * 300), tmp_path / ("y" * 250),
                tmp_path / ("z" * 300) / "out", Path("/proc/nowhere/out")):  # fmt: skip
        with pytest.raises(ParetuneError, match="cannot write") as raised:
            sample_trusted(str(run), ["a red circle"], out)
        assert "\n" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == above


def test_a_target_with_too_long_a_name_is_reported() -> None:
    with pytest.raises(ParetuneError, match=r"no run or model can be at xxx.*too long"):
        open_source("x" * 5000)
