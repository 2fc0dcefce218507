"""The command line: help that teaches, a plan for machines, and one line for every mistake."""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import typer

from paretune.cli import app as cli
from paretune.files import write_text
from paretune.recipes import find_recipe, load_config

GROUP: Any = typer.main.get_command(cli.app)
COMMANDS: dict[str, Any] = GROUP.commands


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `paretune WORDS`. Nothing trains: the executor is taken away."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("training began")

    monkeypatch.setattr("paretune.executors.local.LocalExecutor.__enter__", refuse)
    monkeypatch.setattr(sys, "argv", ["paretune", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


@pytest.fixture
def mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Run the smoke recipe with overrides into a folder; gives back the one line on stderr."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(*overrides: str, out: Path = tmp_path / "out", words: tuple[str, ...] = ()) -> str:
        sets = [word for item in overrides for word in ("--set", item)]
        code, _, err = call(monkeypatch, capsys, "run", "smoke", "--out", out, "--quiet", *sets, *words)
        assert code == 2
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize("words", [(), *((name,) for name in sorted(COMMANDS))])
def test_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "argv", ["paretune", *words, "--help"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert "Usage: paretune" in capsys.readouterr().out


def test_every_command_and_option_is_explained() -> None:
    wanted = {"quickstart", "plan", "run", "tokens", "eval", "report", "score", "export", "doctor"}
    assert wanted <= set(COMMANDS)
    for name, command in COMMANDS.items():
        assert command.help, name
        unexplained = [p.name for p in command.params if p.param_type_name == "option" and not p.help]
        assert unexplained == [], name


def test_plan_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["rounds=2", "train.epochs=3", "train.prompts_per_epoch=2", "train.group_size=4",
            "train.updates_per_epoch=1"]  # fmt: skip
    code, out, err = call(
        monkeypatch, capsys, "plan", "quickstart", "--json", *(w for s in sets for w in ("--set", s))
    )
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["config"]["train"]["epochs"] == 3
    methods = {m["name"]: m for m in told["plan"]["methods"]}
    assert set(methods) == {"mapreduce", "rewarded_soup"}
    assert {m["samples"] for m in methods.values()} == {2 * 3 * 3 * 8}  # rounds, rewards, epochs, samples
    assert {m["updates"] for m in methods.values()} == {2 * 3 * 3}
    assert told["estimate"]["parameters"] > 1e5
    assert set(told["estimate"]["hours"]) == set(methods)


def test_plan_tells_what_tokens_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """10 + 2 x 3 pictures a token drawn in 3 steps, and 10 steps on 4 pictures, of 3 or 4 passes."""
    sets = ["rounds=1", "train.epochs=1", "train.prompts_per_epoch=2", "train.group_size=4",
            "model.steps=5",
            "objective.options.times=1", "evaluate.steps=3", "tokens.steps=10", "tokens.options.samples=10",
            "tokens.options.every=5", "tokens.options.validation=3",
            "tokens.options.batch_size=4"]  # fmt: skip
    drawn = (10 + 2 * 3) * 3
    for loss, passes in (("flow", drawn + 10 * 4 * 3), ("velocity", drawn + 10 * 4 * 4)):
        words = [w for s in [*sets, f"tokens.loss={loss}"] for w in ("--set", s)]
        _, out, _ = call(monkeypatch, capsys, "plan", "quickstart", "--json", *words)
        hours = json.loads(out)["estimate"]["hours"]
        assert hours["tokens"] / hours["mapreduce"] == pytest.approx(passes / (8 * (5 + 3)))
    _, out, _ = call(monkeypatch, capsys, "plan", "quickstart", *words)
    assert "tokens" in out


def test_plan_as_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "plan", "smoke", "--set", "train.group_size=7")
    assert code == 0
    assert "2 prompts x 7 samples" in out
    assert "rewarded_soup" in out


def test_plan_tells_the_published_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "plan", "sd35-medium")
    assert code == 0
    told = " ".join(out.replace("│", " ").split())
    for fact in (
        "512x512 pixels, 10 steps, guidance 4.5; evaluation 40 steps", "clip 0.0001", "noise 0.7",
        "geneval 0.04, ocr 0.04, pickscore 0.01", "global standard deviation", "rank 32, alpha 64",
        "learning rate 0.0003", "average 0.9 every 8", "48 prompts x 24 samples", "4 of 100 epochs",
        "1,382,400", "2,400",
    ):  # fmt: skip
        assert fact in told, fact


@pytest.mark.parametrize(
    "recipe",
    ["sd35-medium", "sd35-large", "sd35-large-turbo", "flux1-dev", "flux1-krea", "flux1-schnell",
     "hunyuan-video", "hunyuan-video-1.5", "wan2.1-1.3b", "llama2-7b"],
)  # fmt: skip
def test_published_recipes_are_planned_before_their_files_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    judge = ("--set", "rewards={visual: {reward: 'mine.py:V', prompts: a.txt, eval_prompts: smoke, "
             "judge: 'judges.py:J'}}")  # fmt: skip
    code, out, _ = call(monkeypatch, capsys, "plan", recipe, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["estimate"]["memory_gb"] > 10
    assert told["missing"] == []  # what a recipe needs is downloaded, and no file is the user's to write
    wanted = {one["place"]: one["size"] for one in told["downloads"] if not one["here"]}
    assert wanted[told["config"]["model"]["path"]] > 2e9
    assert all(own["prompts"] in wanted or own["prompts"].startswith("hf:")
               for own in told["config"]["rewards"].values())  # fmt: skip
    code, out, _ = call(monkeypatch, capsys, "plan", recipe, *judge)
    assert code == 0
    assert out.endswith("not there yet, and needed by a run: mine.py, a.txt, smoke, judges.py\n")


def test_plan_refuses_an_unknown_reward(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "plan", "smoke", "--set", "rewards.ocr.reward=ocrr")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean 'ocr'" in err


def test_plan_takes_an_untargeted_reward_that_is_named_as_it_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "plan", "smoke", "--set", "evaluate.untargeted=[vlm_judge]")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("spec", ["ocr", "rapidocr"])
def test_plan_refuses_an_untargeted_reward_that_the_run_has_already(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    code, _, err = call(
        monkeypatch, capsys, "plan", "smoke", "--set", f"evaluate.untargeted=[pictures.{spec}]"
    )
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{spec} is a reward or a judge of this run already" in err


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("rewards.geneval.prompts={bare}", "bare.jsonl, line 1: reward geneval cannot score 'a dog'"),
        ("evaluate.untargeted=[pictures.ocr]", "ocr is a reward or a judge of this run already"),
        ("evaluate.untargeted=[pictures.rapidocr]", "rapidocr is a reward or a judge of this run already"),
        ("evaluate.untargeted=[ocrr]", "did you mean 'ocr'"),
    ],
)
def test_a_run_that_cannot_be_measured_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    override: str,
    told: str,
) -> None:
    (tmp_path / "bare.jsonl").write_text('{"prompt": "a dog"}\n')
    override = override.format(bare=tmp_path / "bare.jsonl")
    code, _, err = call(
        monkeypatch, capsys, "run", "smoke", "--out", str(tmp_path / "out"), "--set", override
    )
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not (tmp_path / "out").exists()


def test_plan_of_a_folder_that_is_no_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = call(monkeypatch, capsys, "plan", "smoke", "--set", f"model.path={tmp_path}")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "model_index.json is missing" in err


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochz=3", "unknown key train.epochz; did you mean epochs?"),
        ("rewards.ocr.weight=-1", "rewards.ocr.weight: Input should be greater than or equal to 0"),
        ("rewards={}", "rewards is empty: name at least one reward"),
        ("train.group_size=1", "train.group_size: Input should be greater than or equal to 2 (got 1)"),
        ("objective={name: flow_grpo, options: {window: [9, 9]}}", "window must be [first, last) with 0 <= "),
        ("rewards.ocr.reward=orc", "unknown reward 'orc'; did you mean 'ocr'?"),
        ("rewards.ocr.judge=pik", "unknown reward 'pik'"),
        ("rewards.ocr.prompts=pictures/ocr-tran", "did you mean 'pictures/ocr-train'?"),
        ("executor.device=cuda", "executor.device is cuda but no GPU is usable here"),
        ("rewards.ocr.options={[a]: 1}", "the value is not YAML"),
        ("rewards.ocr.options={best: 1}", "reward 'pictures.ocr' could not be made: TypeError"),
    ],
)
def test_a_mistake_in_the_recipe(mistake: Any, tmp_path: Path, override: str, told: str) -> None:
    assert told in mistake(override)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [(), ("--quiet",), ("--json",)])
def test_a_mistake_found_late_is_one_line_whatever_the_display(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    flags: tuple[str, ...],
) -> None:  # fmt: skip
    words = ("run", "smoke", "--out", tmp_path / "out", "--set", "model.path=./none", *flags)
    code, told, err = call(monkeypatch, capsys, *words)
    assert (code, told) == (2, "")
    assert err == "error: model.path: no folder ./none; give a pipeline folder or a hub id\n"


def test_a_recipe_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "run", "smok")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no recipe smok; give a YAML file or one of: " in err


def test_square_brackets_in_a_message_are_kept(mistake: Any) -> None:
    """rich would read them as markup."""
    assert "got '[bold]'" in mistake("rounds='[bold]'")
    assert "no folder ./[/red]/model" in mistake("model.path=./[/red]/model")


def test_an_error_does_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What it quotes may be anybody's: here the message of a reward's exception."""
    (tmp_path / "own.py").write_text("raise ValueError('\\x1b[31mred \\x1b]0;title\\x07')\n")
    (tmp_path / "p.txt").write_text("hello\n")
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "a.txt").write_text("an answer")
    words = ("score", f"{tmp_path}/own.py:f", tmp_path / "answers", "--prompts", tmp_path / "p.txt")
    code, _, err = call(monkeypatch, capsys, *words)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "ValueError:  [31mred  ]0;title" in err
    assert err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", "", "empty.txt is empty"),
        ("bad.jsonl", '{"prompt": "a"}\n{"prompt": \n', "bad.jsonl:2: malformed JSON"),
        ("bare.jsonl", '{"prompt": "a"}\n{}\n', 'bare.jsonl:2: "prompt" is missing'),
        ("hole.txt", "a\n\nb\n", "hole.txt:2: the line is empty"),
    ],
)
@pytest.mark.parametrize("key", ["prompts", "eval_prompts"])
def test_a_bad_prompt_file(
    mistake: Any, tmp_path: Path, key: str, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content)
    assert told in mistake(f"rewards.geneval.{key}={tmp_path / name}")


class TestModel:
    """model.path, checked before anything is loaded."""

    def test_missing(self, mistake: Any, tmp_path: Path) -> None:
        assert f"model.path: no folder {tmp_path}/none" in mistake(f"model.path={tmp_path}/none")

    def test_no_pipeline(self, mistake: Any, tmp_path: Path) -> None:
        line = mistake(f"model.path={tmp_path}")
        assert f"{tmp_path} is no diffusers pipeline: model_index.json is missing" in line

    def test_another_pipeline(self, mistake: Any, tmp_path: Path) -> None:
        write_text(tmp_path / "m" / "model_index.json", '{"_class_name": "KolorsPipeline"}')
        line = mistake(f"model.path={tmp_path}/m")
        assert "is a KolorsPipeline, which no family here draws (the nearest is " in line
        assert "docs/add-a-model.md" in line
        write_text(tmp_path / "m" / "model_index.json", '{"_class_name": "FluxInpaintPipeline"}')
        assert "(the nearest is flux, of a FluxPipeline)" in mistake(f"model.path={tmp_path}/m")

    def test_a_damaged_index(self, mistake: Any, tmp_path: Path) -> None:
        write_text(tmp_path / "m" / "model_index.json", '{"_class_name": "Stab')
        assert "model_index.json is damaged" in mistake(f"model.path={tmp_path}/m")

    def test_only_a_pickle(self, mistake: Any, tmp_path: Path) -> None:
        write_text(tmp_path / "m" / "model_index.json", '{"_class_name": "StableDiffusion3Pipeline"}')
        write_text(tmp_path / "m" / "transformer" / "diffusion_pytorch_model.bin", "x")
        line = mistake(f"model.path={tmp_path}/m")
        assert "only a pickle (diffusion_pytorch_model.bin); convert it to safetensors" in line

    def test_one_file(self, mistake: Any, tmp_path: Path) -> None:
        write_text(tmp_path / "model.ckpt", "x")
        assert "model.ckpt is one file" in mistake(f"model.path={tmp_path}/model.ckpt")


class TestOut:
    """The folder of a run belongs to one run."""

    @pytest.fixture
    def begun(self, tmp_path: Path) -> Path:
        """A folder with the smoke recipe in it."""
        out = tmp_path / "begun"
        write_text(out / "config.yaml", load_config(find_recipe("smoke")).to_yaml())
        return out

    def test_another_run(self, mistake: Any, begun: Path) -> None:
        line = mistake(out=begun)
        assert f"{begun} holds a run already; continue it with --resume" in line
        assert [p.name for p in begun.iterdir()] == ["config.yaml"]

    def test_foreign_files(self, mistake: Any, tmp_path: Path) -> None:
        out = tmp_path / "mine"
        write_text(out / "thesis.txt", "years of work")
        for words in ((), ("--resume",)):
            assert f"{out} is not empty and holds no run" in mistake(out=out, words=words)
        assert [p.name for p in out.iterdir()] == ["thesis.txt"]

    def test_a_file(self, mistake: Any, tmp_path: Path) -> None:
        write_text(tmp_path / "mine.txt", "x")
        assert f"{tmp_path}/mine.txt is a file" in mistake(out=tmp_path / "mine.txt")

    def test_resumed_with_another_recipe(self, mistake: Any, begun: Path) -> None:
        line = mistake("train.epochs=9", "rewards.ocr.weight=2", out=begun, words=("--resume",))
        assert line.endswith("these keys differ: rewards.ocr.weight, train.epochs")

    def test_resumed_from_a_damaged_recipe(self, mistake: Any, begun: Path) -> None:
        (begun / "config.yaml").write_text("a: [1")
        line = mistake(out=begun, words=("--resume",))
        assert f"{begun}/config.yaml cannot be read as a YAML recipe" in line

    def test_a_run_killed_while_its_recipe_was_written_begins_again(
        self, mistake: Any, tmp_path: Path
    ) -> None:
        write_text(tmp_path / "out" / ".config.yaml.123.tmp", "name: smo")
        assert "unknown reward 'orc'" in mistake("rewards.ocr.reward=orc", words=("--resume",))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("report", "{}"), "holds no run: config.yaml is missing"),
        (("export", "{}", "--out", "{}/new"), "holds no finished run"),
        (("export", "{}", "--out", "{}/new", "--pipeline", "--rank", "2"), "give one of them"),
        (("score", "ocr", "{}/none", "--prompts", "p.txt"), "no folder"),
        (("eval", "smoke", "--quiet", "--set", "model.path={}"), "model_index.json is missing"),
    ],
)
def test_mistakes_of_the_other_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    words: tuple[str, ...], told: str,
) -> None:  # fmt: skip
    code, out, err = call(monkeypatch, capsys, *(w.format(tmp_path) for w in words))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert told in line
