"""Opening adapters by a folder, a .safetensors file or a Hugging Face hub id, and checks of several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from ..files import digest, sha256
from ..records.seal import check_adapter
from ..types import ParetuneError
from .keys import Layout, frozen
from .read import PEFT_WEIGHTS, WEIGHT_EMBEDDING, AdapterFile, read_adapter, write_adapter
from .renaming import Rename, alias, read_renames, renamed

_HUB = re.compile(r"^[\w.-]+/[\w.-]+(/.+\.safetensors)?$")


def open_adapter(name: str | Path) -> AdapterFile:
    """Open an adapter by path, by hub id "owner/name", or by "owner/name/file.safetensors".

    An existing path takes precedence over a hub id. Only adapter files are downloaded, never a base model.
    Raises ParetuneError if there is no such adapter.
    """
    text = str(name)
    if Path(name).is_dir():
        check_adapter(Path(name))
    if Path(name).exists() or not _HUB.match(text) or text.startswith("."):
        return read_adapter(name)
    return read_adapter(_download(text))


def open_adapters(
    names: Sequence[str | Path], renames: Sequence[str] = (), partly: bool = False
) -> list[AdapterFile]:
    """Open adapters and rename their modules.

    Args:
        names: adapters, see `open_adapter`.
        renames: "OLD=NEW", see `renaming`.
        partly: whether an adapter may be a part of its model alone.

    Raises:
        ParetuneError: an adapter cannot be read, or is a part of a policy that is given weights of rewards.
    """
    rules = read_renames(renames)
    adapters = [open_adapter(name) for name in names]
    for name, adapter in zip(names, adapters, strict=True):
        if not partly and adapter.path.with_name(WEIGHT_EMBEDDING).is_file():
            raise ParetuneError(
                f"{name} is one part of a policy that is given weights of the rewards ({WEIGHT_EMBEDDING} is "
                "the other), and alone another model: use it through its run, by `paretune sample RUN "
                "--prefer ..`"
            )
    return renamed(adapters, rules)


def measurable(names: Sequence[str | Path], renames: Sequence[str], out: Path) -> list[Path]:
    """The path from which each adapter can be loaded for an evaluation: its file, or a peft adapter's folder.

    Args:
        names: adapters, see `open_adapter`.
        renames: changes of module names, "OLD=NEW".
        out: a folder below which renamed adapters are written.

    Raises:
        ParetuneError: an adapter stores whole tensors, which are not replaced in a loaded model.
    """
    paths: list[Path] = []
    for name, adapter in zip(names, open_adapters(names, renames), strict=True):
        for bare in adapter.whole:
            if frozen(bare) is None:
                raise ParetuneError(
                    f"{name} holds {bare} whole (modules_to_save): fold it into the base first, then measure "
                    "that model"
                )
        if renames:
            inputs = [sha256(adapter.path), *renames]
            path = out / "adapters" / digest(inputs)[:16]
            if not path.exists():
                base = adapter.base_model or ""
                write_adapter(path, adapter, base, {"renamed": list(renames)}, None, adapter.layouts)
        else:
            path = adapter.path.parent if adapter.path.name == PEFT_WEIGHTS else adapter.path
        paths.append(path.absolute())  # resolve() would follow links of the hub's cache to nameless files
    return paths


def _download(text: str) -> Path:
    """Download a hub adapter's weights, with its configuration beside them. Returns the weights' path."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries would be twenty lines before the error message
    owner, repository, *inner = text.split("/", 2)
    hub_id = f"{owner}/{repository}"
    try:
        files = HfApi().list_repo_files(hub_id)
        weights = inner[0] if inner else _choose(hub_id, files)
        for name in ("adapter_config.json", WEIGHT_EMBEDDING):
            beside = str(Path(weights).with_name(name))
            if beside in files:
                hf_hub_download(hub_id, beside)
        return Path(hf_hub_download(hub_id, weights))
    except ParetuneError:
        raise
    except Exception as error:  # the library passes on any error of its layers
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ParetuneError(
            f"no adapter at {text}, neither here nor on the hub: {reason}"
        ) from error


def _choose(hub_id: str, files: Sequence[str]) -> str:
    """The adapter among a repository's files: one with a standard name, else the only safetensors file."""
    for known in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        if known in files:
            return known
    candidates = [file for file in files if file.endswith(".safetensors") and "/" not in file]
    if len(candidates) == 1:
        return candidates[0]
    what = f"several ({', '.join(candidates)}): name one as {hub_id}/FILE" if candidates else "none"
    raise ParetuneError(f"{hub_id} should hold one safetensors adapter, it holds {what}")


def check_together(
    adapters: Sequence[AdapterFile],
    names: Sequence[str],
    base_model: str | None = None,
    mean: bool = True,
) -> str:
    """Check that adapters can be merged.

    Args:
        adapters: the adapters.
        names: their names, for messages.
        base_model: the base model that the user gives, which overrides the files.
        mean: whether the adapters are averaged.

    Returns:
        The base model that they share, "" if none is named.

    Raises:
        ParetuneError: different base models, different shapes or layouts of a module, one module under two
            names, an average of adapters that share no module, or different modules_to_save.
    """
    bases = {a.base_model: name for a, name in zip(adapters, names, strict=True) if a.base_model}
    if base_model is None and len(bases) > 1:
        listed = ", ".join(f"{name}: {base}" for base, name in bases.items())
        raise ParetuneError(
            f"these adapters are for different base models ({listed}); if they are the same model "
            "under two names, give that as the base model"
        )
    seen: dict[str, tuple[str, tuple[int, int], Layout]] = {}
    for adapter, name in zip(adapters, names, strict=True):
        for module, layout in adapter.layouts.items():
            first, shape, kind = seen.setdefault(module, (name, adapter.shape(module), layout))
            if (shape, kind) != (adapter.shape(module), layout):
                raise ParetuneError(
                    f"{first} and {name} differ in {module}: {kind.kind} {shape} against "
                    f"{layout.kind} {adapter.shape(module)}; they are for different base models"
                )
    refuse_aliases(adapters, names)
    if mean:
        _refuse_strangers(adapters, names)
    _check_whole(adapters, names)
    return base_model or next(iter(bases), "")


def refuse_aliases(adapters: Sequence[AdapterFile], names: Sequence[str]) -> None:
    """Raise ParetuneError if two adapters have different names for the same modules."""
    for (x, first), (y, second) in combinations(zip(adapters, names, strict=True), 2):
        rule = alias(y.keys() - x.keys(), x.keys() - y.keys())
        if rule is not None and _same_modules(x, y, rule):
            ours = sorted(x.keys() - y.keys())[0]
            theirs = sorted(y.keys() - x.keys())[0]
            raise ParetuneError(
                f"{first} and {second} call the same modules by two names ({ours} and {theirs}): add "
                f"--rename {rule}"
            )


def _same_modules(x: AdapterFile, y: AdapterFile, rule: Rename) -> bool:
    """Whether y's names and the names that a rule makes of them are likely of the same modules.

    Their shapes and kinds are equal. Where the adapters call some modules alike, one pair alone may be of two
    modules whose names end alike, such as a model's last layer and that of a block.
    """
    pairs = [(rule(name), name) for name in y.keys() - x.keys() if rule(name) in x.keys() - y.keys()]
    if len(pairs) == 1 and x.keys() & y.keys():
        return False
    return all((x.shape(a), x.layouts[a]) == (y.shape(b), y.layouts[b]) for a, b in pairs)


def _refuse_strangers(adapters: Sequence[AdapterFile], names: Sequence[str]) -> None:
    """Raise ParetuneError for a mean of adapters that share no module, which would only weaken each."""
    for i, adapter in enumerate(adapters):
        others = [j for j in range(len(adapters)) if j != i]
        if others and not any(adapter.keys() & adapters[j].keys() for j in others):
            j = others[0]
            rule = alias(adapter, adapters[j], inserted_only=False)
            offer = f"--rename {rule}" if rule else "--rename OLD=NEW"
            raise ParetuneError(
                f"{names[i]} and {names[j]} share no module ({next(iter(adapter))} against "
                f"{next(iter(adapters[j]))}), so a mean would only weaken both: add {offer} where these are "
                "two names of one, or --sum to add them up as they are"
            )


def refuse_whole(adapters: Sequence[AdapterFile]) -> None:
    """Raise ParetuneError for tensors stored whole where weights would have to scale their change."""
    for adapter in adapters:
        for bare in adapter.whole:
            if frozen(bare) is None:
                raise ParetuneError(
                    f"{adapter.path} holds {bare} whole (modules_to_save): its change cannot be scaled "
                    "without the base; train without modules_to_save"
                )


def _check_whole(adapters: Sequence[AdapterFile], names: Sequence[str]) -> None:
    """Raise ParetuneError unless all adapters hold the same whole tensors, so that these can be copied.

    A frozen weight that peft stores beside a module's factors is a weight of the base, so adapters without it
    have the same.
    """
    every = dict.fromkeys(bare for adapter in adapters for bare in adapter.whole)
    for bare in every:
        holders = [
            (adapter.file.read_finite(adapter.whole[bare]), name)
            for adapter, name in zip(adapters, names, strict=True)
            if bare in adapter.whole
        ]
        first, holder = holders[0]
        clashing = [
            name
            for tensor, name in holders
            if tensor.shape != first.shape or not bool((tensor == first).all())
        ]
        if frozen(bare) is None:
            clashing += [n for a, n in zip(adapters, names, strict=True) if bare not in a.whole]
        if clashing:
            raise ParetuneError(
                f"{holder} and {clashing[0]} clash in {bare}, stored whole (modules_to_save): its "
                "change cannot be computed without the base; train without modules_to_save"
            )
