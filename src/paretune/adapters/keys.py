"""Parsing of an adapter file's key names, of peft and diffusers, into modules.

A module's A and B may be stored as linear factors [r, n] and [m, r], as convolutions [r, in, k..] and
[m, r, 1..], or as factors of an embedding. All become the matrices of `ops.lowrank`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..types import ParetuneError
from .foreign_keys import tool_of, translate
from .layout import Factors, Layout
from .tensors import TensorFile

PEFT_PREFIX = "base_model.model."
COMPONENTS = ("transformer", "unet")
_FACTOR = re.compile(
    r"^(?P<module>.+)\.(?:lora_(?P<peft>[AB])(?:\.[\w-]+)?\.weight"  # peft may include an adapter's name
    r"|lora_embedding_(?P<embedding>[AB])(?:\.[\w-]+)?"
    r"|(?:lora\.|lora_|lora_linear_layer\.)(?P<diffusers>down|up)\.weight)$"
)
_XLABS = re.compile(r"^(?P<module>.+\.processor\.\w+_lora\d?)\.(?P<side>down|up)\.weight$")
_SIDES = {"down": "A", "up": "B"}
# Parts of key names of other methods than plain LoRA -> the method, and what the user can do.
_FOREIGN = {
    "lora_magnitude_vector": "DoRA, whose scale depends on the base weights: fold it into the base",
    "dora_scale": "DoRA, whose scale depends on the base weights: fold it into the base",
    ".lokr_": "LoKr, a Kronecker product: convert it to LoRA (by SVD) first",
    ".hada_": "LoHa, a Hadamard product: convert it to LoRA (by SVD) first",
    ".oft_": "OFT, which multiplies weights: fold it into the base",
    "lora_B.bias": "LoRA with biases (lora_bias): train it without",
    "lora_up.bias": "LoRA with biases: train it without",
    "lora_mid": "LoCon with a middle factor: convert it to plain LoRA",
    "_lora.": "diffusers' old attention-processor keys: load and save it once with diffusers",
    "text_encoder": "text-encoder modules beside the denoiser's: merge one model's adapters only",
    "lora_": "LoRA tensors of an unknown layout",
}


@dataclass(frozen=True)
class Contents:
    """The contents of a file: modules, tensors stored whole (modules_to_save), and diffusers' component.

    translated: whether the modules had names of another tool.
    """

    modules: dict[str, Factors]
    whole: dict[str, str]
    component: str | None
    translated: bool = False


def _strip(name: str) -> tuple[str, str | None]:
    """A tensor's name without the prefix of its format, and diffusers' component."""
    if name.startswith(PEFT_PREFIX):
        return name.removeprefix(PEFT_PREFIX), None
    for component in COMPONENTS:
        if name.startswith(component + "."):
            return name.removeprefix(component + "."), component
    return name, None


def frozen(bare: str) -> str | None:
    """The module M of a tensor M.base_layer.*, the frozen weight that peft stores beside M's factors."""
    module, mark, _ = bare.rpartition(".base_layer.")
    return module if mark else None


def _refuse_foreign(file: TensorFile, name: str) -> None:
    if name.endswith((".diff", ".diff_b")):
        raise ParetuneError(
            f"{file.path} cannot be merged ({name}): whole changes, no factors: extract a LoRA (by SVD) first"
        )
    for mark, reason in _FOREIGN.items():
        if mark in name:
            raise ParetuneError(f"{file.path} cannot be merged ({name}): {reason}")


def _factor(bare: str) -> tuple[str, str, bool] | None:
    """The module, the side A or B, and whether it is an embedding's, for a factor's name."""
    match = _FACTOR.match(bare)
    if match is not None and not bare.startswith("text_encoder"):
        side = match["peft"] or match["embedding"] or _SIDES[match["diffusers"]]
        return match["module"], side, bool(match["embedding"])
    match = _XLABS.match(bare)
    return (match["module"], _SIDES[match["side"]], False) if match is not None else None


def parse(file: TensorFile, configured: bool = False) -> Contents:
    """Sort a file's tensors into modules. Raises ParetuneError for anything but plain LoRA.

    configured: whether peft's configuration is beside the file. If so, names with peft's prefix are names of
    the adapted model and are not translated, even if they look like another tool's.
    """
    modules: dict[str, Factors] = {}
    whole: dict[str, str] = {}
    components: set[str] = set()
    for name in file.entries:
        bare, component = _strip(name)
        if component is not None:
            components.add(component)
        factor = _factor(bare)
        if factor is None and not bare.endswith(".alpha"):
            _refuse_foreign(file, name)
        if factor is not None:
            module, side, embedding = factor
            factors = modules.setdefault(module, Factors())
            if side in factors.names:
                raise ParetuneError(f"{file.path} holds two {side} factors for {module}")
            factors.names[side] = name
            if embedding:
                factors.layout = Layout("embedding")
        elif bare.endswith(".alpha"):
            modules.setdefault(bare.removesuffix(".alpha"), Factors()).alpha = name
        else:
            whole[bare] = name
    if not any(factors.names for factors in modules.values()):
        raise ParetuneError(f"{file.path} holds no LoRA tensors")
    if len(components) > 1:
        raise ParetuneError(f"{file.path} mixes {' and '.join(sorted(components))} modules")
    for module, factors in modules.items():
        _measure(file, module, factors)
    component = next(iter(components), None)
    if not any(_is_foreign(module, factors, configured) for module, factors in modules.items()):
        return Contents(modules, whole, component)
    modules = translate(file.path, modules)
    if whole:
        name = next(iter(whole.values()))
        raise ParetuneError(f"{file.path} cannot be merged ({name}): whole tensors beside the factors")
    return Contents(modules, whole, "transformer", translated=True)


def _is_foreign(module: str, factors: Factors, configured: bool) -> bool:
    adapted = configured and any(name.startswith(PEFT_PREFIX) for name in factors.names.values())
    return not adapted and tool_of(module) is not None


def _measure(file: TensorFile, module: str, factors: Factors) -> None:
    """Set rank, shape and layout from the header, and check that A and B fit."""
    missing = {"A", "B"} - factors.names.keys()
    if missing:
        raise ParetuneError(f"{file.path} lacks the {min(missing)} factor of {module}")
    a = file.entries[factors.names["A"]].shape
    b = file.entries[factors.names["B"]].shape
    if len(a) != len(b) or len(a) < 2 or a[0] != b[1] or any(size != 1 for size in b[2:]):
        raise ParetuneError(
            f"{file.path}: the factors of {module} do not fit, A {list(a)} and B {list(b)}"
            + ("; grouped convolutions are not supported" if len(a) > 2 else "")
        )
    if a[0] < 1:
        raise ParetuneError(f"{file.path}: the factors of {module} have rank 0; leave the module out")
    alpha = file.entries[factors.alpha].shape if factors.alpha is not None else ()
    if math.prod(alpha) != 1:
        raise ParetuneError(f"{file.path}: the alpha of {module} is not a single number but {list(alpha)}")
    factors.rank, factors.shape = a[0], (b[0], math.prod(a[1:]))
    if len(a) > 2:
        factors.layout = Layout("conv", tuple(a[2:]))
