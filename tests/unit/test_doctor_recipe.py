"""What a recipe needs from elsewhere: told by plan without asking, and asked of a hub that is made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoConfig
from typer.testing import CliRunner

from paretune.cli.app import app
from paretune.commands import doctor_recipe
from paretune.commands.doctor import Finding
from paretune.commands.doctor_recipe import examine_recipe
from paretune.commands.downloads import downloads, missing_lines, spoken_size
from paretune.commands.plan_recipe import plan_recipe
from paretune.config import RunConfig
from paretune.data.hub import load_hub
from paretune.foreign import loading
from paretune.foreign.hub_errors import refusal
from paretune.foreign.hub_facts import ask_hub, cached_main, is_cached, remembered, wanted_files
from paretune.recipes import find_recipe, load_config
from paretune.rewards.needs import medium_of_reward, models_of, revision_of
from paretune.rewards.pinned import PINNED
from paretune.rewards.table import REWARDS
from paretune.types import ParetuneError

FILES = {
    "model_index.json": 500, "transformer/config.json": 100, "transformer/a.safetensors": 4_000_000_000,
    "transformer/a.fp16.safetensors": 4_000_000_000, "whole.safetensors": 9_000_000_000,
    "tokenizer/merges.txt": 1000, "README.md": 77, "old/model.onnx": 5,
}  # fmt: skip


class Info:
    """What `HfApi.model_info(.., files_metadata=True)` returns, as far as it is read."""

    def __init__(self, files: dict[str, int], gated: Any = False, sha: str = "a" * 40, card: Any = None):
        self.siblings = [type("File", (), {"rfilename": n, "size": s}) for n, s in files.items()]
        self.gated, self.sha, self.card_data = gated, sha, card


class Hub:
    """A hub that answers for what it has. asked: the repositories, with kind and revision."""

    def __init__(self, repositories: dict[str, Any]) -> None:
        self.repositories, self.asked = repositories, list[tuple[str, str, str | None]]()

    def _info(self, kind: str, repo: str, revision: str | None) -> Info:
        self.asked.append((kind, repo, revision))
        found = self.repositories.get(repo, Info({"model.safetensors": 1000}, card={"license": "mit"}))
        if isinstance(found, Exception):
            raise found
        return found

    def model_info(self, repo: str, revision: str | None, files_metadata: bool) -> Info:
        return self._info("model", repo, revision)

    def dataset_info(self, repo: str, revision: str | None, files_metadata: bool) -> Info:
        return self._info("dataset", repo, revision)

    def auth_check(self, repo: str, repo_type: str) -> None:
        if self.repositories[repo].gated == "manual":
            raise refused(GatedRepoError)


def refused(kind: Any) -> Exception:
    return kind("no", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub({})
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    return made


def recipe(name: str, *changes: str) -> RunConfig:
    return load_config(find_recipe(name), changes)


def found(findings: list[Finding], place: str) -> Finding:
    (one,) = [finding for finding in findings if finding.what.endswith(place)]
    return one


def test_the_models_of_a_reward_are_its_options_or_their_defaults() -> None:
    assert models_of("pickscore", {"model": "mine/pick"})["model"] == "mine/pick"
    assert models_of("text_model", {"model": "assistant/helpful", "template": "{prompt}{answer}"}) == {}
    assert models_of("videoalign", {"head": "VQ"}) == {
        "model": "videoalign", "base": "Qwen/Qwen2-VL-2B-Instruct",
    }  # fmt: skip
    assert models_of("file.py:Mine", {"model": "a/b"}) == {}
    assert revision_of("vbench_subject", "model", {}) == "a77533c84408875b30b5e8beb766c82a5be82bf4"
    assert revision_of("vbench_subject", "model", {"revision": "abc"}) == "abc"
    own = {"revision": "abc", "model": "folder"}
    assert revision_of("hpsv3", "base", own) == PINNED["Qwen/Qwen2-VL-7B-Instruct"]  # it is the model's


def test_what_a_reward_scores() -> None:
    wanted = {"pickscore": "pictures", "videoalign": "clips", "ifeval": "texts", "pictures.ocr": "pictures",
              "clips.motion_judge": "clips", "assistant.helpful_rules": "texts", "a.py:B": None}  # fmt: skip
    assert {name: medium_of_reward(name) for name in wanted} == wanted
    anything = {name for name in REWARDS if medium_of_reward(name) is None}
    assert anything == {"remote", "vlm_judge"}  # whatever their server scores


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("hunyuan-video", "rewards.motion.reward=pickscore", "rewards.motion: pickscore scores pictures"),
        ("sd35-medium", "rewards.ocr.reward=videoalign", "draws pictures; rewards of pictures: geneval, ocr"),
        ("llama2-7b", "evaluate.untargeted=[vbench_flicker]", "untargeted: vbench_flicker scores clips"),
    ],
)
def test_a_reward_of_another_medium_is_refused_before_anything_is_loaded(
    name: str, change: str, told: str
) -> None:
    with pytest.raises(ParetuneError, match=told):
        plan_recipe(name, [change], False, False, print)


def test_plan_tells_what_is_downloaded_and_asks_nobody(hub: Hub) -> None:
    lines = missing_lines(downloads(recipe("hunyuan-video")))
    assert lines == [
        "to download: hunyuanvideo-community/HunyuanVideo (the model): about 42.4 GB",
        "to download: videoalign (visual): 5.0 GB, by `paretune fetch videoalign`",
        "to download: Qwen/Qwen2-VL-2B-Instruct (visual): a few MB",
        "to download: facebook/dino-vitb16 (untargeted): 343.0 MB",
        "to download: deepmind/optical-flow-perceiver (untargeted): 164.0 MB",
        "to download: set:video@train[:480] (prompts of visual): 3.8 MB",
        "to download: set:vbench@test[:128] (prompts of visual): 0.2 MB",
        "to download in all: about 48.0 GB",
    ]
    assert hub.asked == []
    assert missing_lines(downloads(recipe("quickstart"))) == []
    assert spoken_size(999_000_000) == "999.0 MB"


def test_doctor_asks_for_size_and_licence_and_plan_remembers_them(hub: Hub) -> None:
    model = "stabilityai/stable-diffusion-3.5-medium"
    hub.repositories[model] = Info(FILES, "auto", card={"license": "other", "license_name": "stability"})
    findings = examine_recipe(recipe("sd35-medium"))
    told = found(findings, model)
    assert told.ok
    start = "licence stability, gated, and this login may have it, 4.0 GB, revision aaaaaaaa"
    assert told.detail.startswith(start)
    assert found(findings, "set:ocr@train[:2000]").detail.startswith("licence MIT; is fetched by the run")
    assert found(findings, "recipe").ok
    assert found(findings, "disk for downloads").detail.endswith("4.0 GB to download (HF_HOME says where)")
    assert all(revision == PINNED.get(place) for _, place, revision in hub.asked)
    assert ("model", model, None) in hub.asked
    assert f"to download: {model} (the model): 4.0 GB" in missing_lines(downloads(recipe("sd35-medium")))


def test_a_gated_model_without_a_login_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = "black-forest-labs/FLUX.1-dev"
    hub.repositories[model] = Info(FILES, "manual")
    told = found(examine_recipe(recipe("flux1-dev")), model)
    assert (told.ok, told.needed) == (False, True)
    assert told.detail == (
        f"{model} is gated and nobody is logged in: accept its licence at https://huggingface.co/{model}, "
        "then `hf auth login`"
    )
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    told = found(examine_recipe(recipe("flux1-dev")), model)
    assert "this login has no access yet" in told.detail


def test_pickles_unknown_names_and_silence_are_one_line(hub: Hub) -> None:
    hub.repositories |= {
        "Ray2333/gpt2-large-helpful-reward_model": Info({"pytorch_model.bin": 3_000_000_000}),
        "Ray2333/gpt2-large-harmless-reward_model": refused(RepositoryNotFoundError),
        "meta-llama/Llama-2-7b-hf": OSError("no connection\nat all"),
        "Anthropic/hh-rlhf": Info({"helpful-base/train.jsonl.gz": 16_000_000}, card={"license": "mit"}),
    }
    findings = examine_recipe(recipe("llama2-7b"))
    assert "pickles alone (pytorch_model.bin)" in found(findings, "helpful-reward_model").detail
    assert "the hub has no Ray2333/gpt2-large-harmless" in found(findings, "harmless-reward_model").detail
    silent = "the hub does not tell about meta-llama/Llama-2-7b-hf: no connection"
    assert found(findings, "Llama-2-7b-hf").detail == silent
    assert found(findings, "Anthropic/hh-rlhf").detail.startswith("licence mit, 16.0 MB")
    assert ("dataset", "Anthropic/hh-rlhf", None) in hub.asked


def _cache(folder: Path, repo: str, revision: str, main: bool = True) -> None:
    place = folder / "hub" / f"models--{repo.replace('/', '--')}"
    (place / "snapshots" / revision).mkdir(parents=True)
    (place / "snapshots" / revision / "config.json").write_text("{}")
    if main:
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(revision)


def test_a_revision_that_changed_is_reported(hub: Hub, tmp_path: Path) -> None:
    model = "hunyuanvideo-community/HunyuanVideo"
    _cache(tmp_path, model, "b" * 40)
    told = found(examine_recipe(recipe("hunyuan-video")), model)
    assert (told.ok, told.needed) == (False, False)
    changed = "it changed on the hub since it was downloaded here (here bbbbbbbbbbbb, there aaaaaaaaaaaa)"
    assert changed in told.detail
    assert (is_cached(model), cached_main(model)) == (True, "b" * 40)


def test_a_pinned_commit_is_asked_for_and_does_not_change(hub: Hub, tmp_path: Path) -> None:
    commit = "a77533c84408875b30b5e8beb766c82a5be82bf4"
    _cache(tmp_path, "facebook/dino-vitb16", commit, main=False)
    told = found(examine_recipe(recipe("hunyuan-video")), "facebook/dino-vitb16")
    assert told.ok
    assert told.detail.endswith(", here")
    assert ("model", "facebook/dino-vitb16", commit) in hub.asked


def test_a_disk_that_is_too_small_is_reported(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 20_000_000_000})
    monkeypatch.setattr(doctor_recipe.shutil, "disk_usage", lambda place: usage)
    hub.repositories["hunyuanvideo-community/HunyuanVideo"] = Info({"t/a.safetensors": 25_000_000_000})
    findings = examine_recipe(recipe("hunyuan-video"))
    room = found(findings, "disk for downloads")
    assert not room.ok
    assert room.detail.startswith("20.0 GB free at ")
    assert not found(findings, "disk for the run").ok


def test_a_recipe_that_does_not_fit_together_is_reported(hub: Hub) -> None:
    told = found(examine_recipe(recipe("sd35-medium", "rewards.ocr.reward=videoalign")), "recipe")
    assert not told.ok
    assert "videoalign scores clips" in told.detail
    told = found(examine_recipe(recipe("sd35-medium", "rewards.ocr.prompts=none.txt")), "recipe")
    assert told.detail == "files that are not there: none.txt"


def test_what_is_downloaded_of_a_repository() -> None:
    assert sum(wanted_files(FILES).values()) == 4_000_001_600
    assert wanted_files({"model.safetensors": 1, "pytorch_model.bin": 1, "config.json": 1}).keys() == {
        "model.safetensors", "config.json",
    }  # fmt: skip


def test_the_hubs_answers_are_kept(hub: Hub) -> None:
    assert remembered("who/what") is None
    facts = ask_hub("who/what")
    assert remembered("who/what") == facts
    assert (facts.size, facts.licence, facts.revision) == (1000, "mit", "a" * 40)


def test_loading_a_gated_model_is_the_same_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kind:
        @staticmethod
        def from_pretrained(place: str, **settings: Any) -> None:
            raise OSError("You are trying to access a gated repo.\nMake sure to have access to it")

    with pytest.raises(ParetuneError, match="reward model a/b: a/b is gated and nobody is logged in"):
        loading.load(Kind, "a/b", "reward model a/b")
    told = refusal(refused(RevisionNotFoundError), "a/b")
    assert told == "the hub has no such revision of a/b"
    assert refusal(ValueError("gone"), "a/b") is None

    def load_dataset(*args: Any, **options: Any) -> None:
        raise ValueError("no") from refused(GatedRepoError)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(ParetuneError, match="cannot be loaded: who/gated is gated and nobody is logged in"):
        load_hub("hf:who/gated@train")


def test_the_command(hub: Hub) -> None:
    hub.repositories["black-forest-labs/FLUX.1-dev"] = Info(FILES, "manual")
    done = CliRunner().invoke(app, ["doctor", "flux1-dev", "--json"])
    assert done.exit_code == 1  # something is missing that the recipe needs
    rows = {row["what"]: row for row in json.loads(done.output)}
    assert rows["recipe"]["ok"]
    assert not rows["the model: black-forest-labs/FLUX.1-dev"]["ok"]
    shown = CliRunner().invoke(app, ["doctor", "flux1-dev"])
    assert "!! the model: black-forest-labs/FLUX.1-dev: black-forest-labs/FLUX.1-dev is gated" in shown.output


@pytest.mark.parametrize("place", ["/nowhere/clip", "no/such/folder", "./gone"])
def test_a_folder_that_does_not_exist(place: str) -> None:
    """transformers takes what is no folder for a name on the hub, and says so in its own words."""
    with pytest.raises(ParetuneError) as caught:
        loading.load(AutoConfig, place, "reward pickscore")
    assert str(caught.value) == (
        f"reward pickscore: there is no folder {place}, and it is no name of a model on the hub (OWNER/NAME)"
    )
