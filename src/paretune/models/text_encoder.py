"""A frozen text encoder of transformers, by which texts are compared: a folder or a hub id.

A model with text features (those of pictures and texts) gives these, one with a projection its projected
vector, any other the mean of its last hidden states. Every text is encoded alone, so that its vector does not
depend on the others. An encoder that pools the last place of a padded text (it was trained so) gets every
text padded to its full length.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..foreign.loading import load
from ..foreign.silence import quiet
from ..types import ParetuneError
from .checked import load_checked, loading
from .detect import resolve_path

MOST = 1 << 20  # tokens of an encoder that names no limit
PROJECTED = "WithProjection"  # the end of the names of transformers' classes


class TextEncoder:
    """See the module. place: the folder or the hub id, for messages too."""

    def __init__(self, place: str) -> None:
        import transformers

        quiet()
        self.place, found, what = place, resolve_path(place), f"--embed {place}"
        with loading(f"{what} cannot be loaded"):
            config = load(transformers.AutoConfig, found, what)
            self.tokenizer: Any = load(transformers.AutoTokenizer, found, what)
        kind = next((a for a in config.architectures or () if str(a).endswith(PROJECTED)), "")
        # Of a model that reads a text and writes another only the reader is opened.
        usual = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel
        kind = getattr(transformers, kind, usual)
        self.model: Any = load_checked(kind, found, what, dtype=torch.float32).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._check(what)
        self.most, self.pads = self._longest(), False
        with loading(f"{what} embeds no texts"):
            self.pads = self._pools_the_last_place()

    def _check(self, what: str) -> None:
        """Raise ParetuneError for a model that reads no text, and for a tokenizer of another model."""
        reads = str(getattr(self.model, "main_input_name", "input_ids"))
        if reads != "input_ids" and not hasattr(self.model, "get_text_features"):
            raise ParetuneError(f"{what} embeds no texts: it reads {reads}; give a text encoder")
        config = getattr(self.model.config, "text_config", self.model.config)
        rows = getattr(config, "vocab_size", None)
        most = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        if isinstance(rows, int) and most > rows:
            raise ParetuneError(
                f"{what} embeds no texts: its tokenizer has {most} tokens and its model {rows}; they are not "
                "of one encoder"
            )

    def check_fits(self, text: str) -> None:
        """Raise ParetuneError for a text that is too long; none is cut."""
        if not self.fits(text):
            raise ParetuneError(
                f"--embed {self.place}: the text {text[:60]!r} has {self._length(text)} tokens, and this "
                f"encoder reads {self.most}"
            )

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vectors of some texts, [N, H]. Raises ParetuneError as `check_fits`."""
        for text in texts:
            self.check_fits(text)
        with loading(f"--embed {self.place} cannot encode a text"):
            return torch.cat([self._vector(self._inputs(text, self.pads)) for text in texts])

    def fits(self, text: str) -> bool:
        """Whether the encoder reads the whole of a text."""
        return self._length(text) <= self.most

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text)["input_ids"])

    def _inputs(self, text: str, padded: bool) -> Mapping[str, Tensor]:
        """The tokens of a text, and their mask if the tokenizer gives one."""
        options = {"padding": "max_length", "max_length": self.most} if padded else {}
        found = self.tokenizer(text, return_tensors="pt", **options)
        return {name: found[name] for name in ("input_ids", "attention_mask") if name in found}

    @torch.no_grad()
    def _vector(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[1, H]."""
        if hasattr(self.model, "get_text_features"):
            features = self.model.get_text_features(**inputs)
            return getattr(features, "pooler_output", features)
        outputs = self.model(**inputs)
        if getattr(outputs, "text_embeds", None) is not None:
            return outputs.text_embeds
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).unsqueeze(-1)
        return (outputs.last_hidden_state * mask).sum(1) / mask.sum(1)

    def _pools_the_last_place(self) -> bool:
        """Whether padding that is masked, or has no mask, changes the vector of a text."""
        bare = self._vector(self._inputs("a", False))
        if self.most == MOST or not hasattr(self.model, "get_text_features"):
            return False  # a mean over the tokens that are there
        return not torch.allclose(bare, self._vector(self._inputs("a", True)), atol=1e-3, rtol=1e-3)

    def _longest(self) -> int:
        """The tokens that it reads; some tables of positions hold more rows than the tokenizer allows."""
        config = getattr(self.model.config, "text_config", self.model.config)
        rows = int(getattr(config, "max_position_embeddings", 0) or MOST)
        return min(rows, int(min(self.tokenizer.model_max_length or MOST, MOST)))
