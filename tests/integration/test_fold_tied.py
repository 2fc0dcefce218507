"""`fold` into language models whose head is their embedding: the result is base + adapter by peft."""

import json

import pytest
import torch
from safetensors.torch import load_file

from paretune.adapters.fold import fold_adapter
from paretune.adapters.store import load_delta
from paretune.models.lora import fold as fold_in_memory
from paretune.types import ParetuneError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
IDS = torch.tensor([[1, 2, 3, 10]])
EMBED, HEAD = "embed_tokens", "lm_head"


def llama(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tied,
    )).eval()  # fmt: skip


def gpt2(tied):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=24, n_positions=8, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=tied,
    )).eval()  # fmt: skip


def adapter(base, folder, **settings):
    """Save an adapter that changes everything it may; returns the logits of the base with it on, by peft."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, lora_alpha=6, **settings)
    )
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    with torch.no_grad():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)(IDS).logits


def logits(folder):
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits


@pytest.mark.parametrize("ensure", [False, True], ids=["", "ensured"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("targets", "saved"),
    [
        ([EMBED], []), ([HEAD], []), ([EMBED, HEAD], []), ([], [EMBED]), ([], [HEAD]), ([], [EMBED, HEAD]),
        ([EMBED], [HEAD]), ([HEAD], [EMBED]),
    ],
    ids="+".join,
)  # fmt: skip
def test_every_way_to_change_embedding_and_head(tmp_path, targets, saved, tied, ensure):
    if ensure and tied and targets == [HEAD] and saved:
        pytest.skip("peft itself refuses this")
    llama(tied).save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["q_proj", *targets], "ensure_weight_tying": ensure}
    expected = adapter(tmp_path / "base", tmp_path / "lora", modules_to_save=saved or None, **settings)
    report = fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=2e-5, rtol=1e-4)
    assert (expected - logits(tmp_path / "base")).norm() > 1
    stays = tied and ensure
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is stays
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")) is not stays
    assert ("no longer shared" in report.line()) is (tied and not ensure)


@pytest.mark.parametrize("targets", [["wte"], ["lm_head"], ["wte", "lm_head"]])
def test_another_architecture_that_ties_unless_asked_to(tmp_path, targets):
    """GPT-2's config may leave the key out, for tying is its default."""
    gpt2(True).save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    expected = adapter(tmp_path / "base", tmp_path / "lora", target_modules=["c_attn", *targets])
    fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=2e-5, rtol=1e-4)


def test_a_sharded_base_gets_its_own_head_in_the_index(tmp_path):
    llama(True).save_pretrained(tmp_path / "base", max_shard_size="2KB")
    expected = adapter(tmp_path / "base", tmp_path / "lora", target_modules=["q_proj", HEAD])
    fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=2e-5, rtol=1e-4)
    name = "model.safetensors.index.json"
    index, before = (json.loads((tmp_path / place / name).read_text()) for place in ("out", "base"))
    assert index["weight_map"]["lm_head.weight"] == index["weight_map"]["model.embed_tokens.weight"]
    assert index["metadata"]["total_size"] - before["metadata"]["total_size"] == 24 * 16 * 4


def test_a_base_that_stores_both_of_its_tied_weights(tmp_path):
    from safetensors.torch import save_file

    llama(True).save_pretrained(tmp_path / "base")
    expected = adapter(tmp_path / "base", tmp_path / "lora", target_modules=["q_proj", EMBED])
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file,
              metadata={"format": "pt"})  # fmt: skip
    fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=2e-5, rtol=1e-4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_an_adapter_of_other_layers_leaves_the_weights_tied(tmp_path):
    llama(True).save_pretrained(tmp_path / "base")
    expected = adapter(tmp_path / "base", tmp_path / "lora", target_modules=["q_proj"])
    fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), expected, atol=2e-5, rtol=1e-4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True


def test_a_weight_shared_by_more_than_two_is_refused(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import T5Config, T5ForConditionalGeneration

    base = T5ForConditionalGeneration(T5Config(
        vocab_size=24, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
    ))  # fmt: skip
    base.save_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(ParetuneError, match=r"lm_head\.weight alone, shared by \d weights of the base"):
        fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("targets", [[EMBED], [HEAD], [EMBED, HEAD]], ids="+".join)
def test_the_model_in_memory_is_changed_as_the_files_are(tmp_path, targets):
    """`eval` folds into a loaded model: a change of one name must not move what is tied to it."""
    llama(True).save_pretrained(tmp_path / "base")
    expected = adapter(tmp_path / "base", tmp_path / "lora", target_modules=["q_proj", *targets])
    model = llama(True)
    fold_in_memory(model, load_delta([tmp_path / "lora"]))
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected, atol=2e-5, rtol=1e-4)


def gemma3():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    torch.manual_seed(1)
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    ).eval()


@pytest.mark.parametrize("targets", [[], [EMBED], [HEAD], ["out_proj"]], ids="+".join)
def test_a_vision_language_model_whose_files_keep_older_names(tmp_path, targets):
    """Its class says model.language_model.layers, its files language_model.model.layers."""
    from peft import LoraConfig, PeftModel, get_peft_model

    base = gemma3()
    base.save_pretrained(tmp_path / "base")
    assert "language_model.model.norm.weight" in load_file(tmp_path / "base" / "model.safetensors")
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", *targets]))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(tmp_path / "lora")
    kind = type(gemma3())
    with torch.no_grad():
        expected = PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "lora")(IDS)
        fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
        folded = kind.from_pretrained(tmp_path / "out")(IDS)
    torch.testing.assert_close(folded.logits, expected.logits, atol=2e-5, rtol=1e-4)
