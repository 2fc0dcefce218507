"""What the docs tell to write in plain diffusers, run as it stands on the embedded model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.adapters.store import save_delta
from paretune.config import ModelConfig
from paretune.models.detect import EMBEDDED
from paretune.models.flow import Sampling, sample
from paretune.models.lora import folded
from paretune.models.sd3.policy import SD3Policy
from paretune.ops.lowrank import LowRank
from paretune.reward_tokens.files import read_token, write_token
from paretune.reward_tokens.pipelines import Scaled

DOCS = Path(__file__).parents[2] / "docs"
PROMPT = "a sign saying kite"


@pytest.fixture(scope="module")
def policy() -> SD3Policy:
    return SD3Policy(ModelConfig(path="pictures"))


def documented(page: str, call: str) -> dict[str, Any]:
    """Run the page's Python block that holds `call`; returns what it defined."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    (block,) = [b for b in blocks if call in b and "BASE" in b]
    made: dict[str, Any] = {"BASE": str(EMBEDDED["pictures"])}
    exec(block, made)
    return made


def redrawn(made: dict[str, Any], words: str, noise: torch.Tensor) -> torch.Tensor:
    """A picture by the documented pipeline and settings, from known noise."""
    assert made["image"].size == (32, 32)
    return made["pipe"](words, latents=noise, output_type="pt", **made["settings"]).images


def test_tokens_as_documented_give_paretunes_picture(
    policy: SD3Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs/quickstart/final/tokens/ocr"
    write_token(folder, policy.new_token("ocr", 1, "", torch.Generator().manual_seed(0)))
    monkeypatch.chdir(tmp_path)
    made = documented("tokens.md", "load_textual_inversion")
    noise = policy.initial_noise(1, torch.Generator().manual_seed(1))
    bare, told = (policy.encode([PROMPT], False, t) for t in ((), (Scaled(read_token(folder)),)))
    ours, base = (policy.decode(sample(policy, c, noise, Sampling(8, 1.0)).clean) for c in (told, bare))
    theirs = redrawn(made, f"{PROMPT} <ocr>", noise)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (base - ours).abs().max() > 1e-2


def test_an_adapter_as_documented_gives_paretunes_picture(
    policy: SD3Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "transformer_blocks.0.attn.add_v_proj"
    width = policy.transformer.get_parameter(f"{name}.weight").shape
    generator = torch.Generator().manual_seed(0)
    deltas = {name: LowRank(*(torch.randn(s, generator=generator) for s in ((width[0], 2), (2, width[1]))))}
    folder = tmp_path / "runs/quickstart/final"
    folder.mkdir(parents=True)
    save_delta(folder, deltas, "pictures", {}, "transformer")
    monkeypatch.chdir(tmp_path)
    made = documented("runs.md", "load_lora_weights")
    noise = policy.initial_noise(1, torch.Generator().manual_seed(1))
    conditions = policy.encode([PROMPT], False)
    base = policy.decode(sample(policy, conditions, noise, Sampling(8, 1.0)).clean)
    with folded(policy.transformer, deltas):
        ours = policy.decode(sample(policy, conditions, noise, Sampling(8, 1.0)).clean)
    torch.testing.assert_close(ours, redrawn(made, PROMPT, noise), atol=1e-4, rtol=0)
    assert (base - ours).abs().max() > 1e-2
