"""Which commit of a published model is read, where nobody says another."""

from __future__ import annotations

PINNED = {
    # The commit with safetensors, a pull request of the hub's own converter; the main branch has a pickle.
    "facebook/dino-vitb16": "a77533c84408875b30b5e8beb766c82a5be82bf4",
    "Qwen/Qwen2-VL-2B-Instruct": "895c3a49bc3fa70a340399125c650a463535e71c",
}


def pinned(model: str) -> dict[str, str]:
    """from_pretrained's keyword for the commit to read; none for a folder or a model that is not listed."""
    commit = PINNED.get(model)
    return {} if commit is None else {"revision": commit}
