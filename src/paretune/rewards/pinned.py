"""Which commit of a published model is read, where nobody says another."""

from __future__ import annotations

# Commits of the hub, as public repositories that pin them, or stored copies of the hub's pages, name them;
# nothing was downloaded. A model that is not listed is read as it is on the hub now, unless a reward's
# `revision` names a commit.
PINNED = {
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    "yuvalkirstain/PickScore_v1": "a4e4367c6dfa7288a00c550414478f865b875800",
    "facebook/dinov2-base": "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "Qwen/Qwen2-VL-7B-Instruct": "eed13092ef92e448dd6875b2a00151bd3f7db0ac",
    "Qwen/Qwen2.5-VL-7B-Instruct": "cc594898137f460bfe9f0759e9844b3ce807cfb5",
    "zhiyuanyou/DeQA-Score-Mix3": "246e219b7e3bc9b5dff5269c1a8564087aefca3f",
    "MizzenAI/HPSv3": "4f81e3e09edd82fe3c5f636444c721b592a735ca",
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": "eb2676d20da2f2d41082289d23c59b9f7427f955",
    # The hub's own converter added safetensors.
    "deepmind/optical-flow-perceiver": "3aa2a2f19ab717dae518732f21e0fc119230ccf8",
    # The commit with safetensors, a pull request of the hub's own converter; the main branch has a pickle.
    "facebook/dino-vitb16": "a77533c84408875b30b5e8beb766c82a5be82bf4",
    "Qwen/Qwen2-VL-2B-Instruct": "895c3a49bc3fa70a340399125c650a463535e71c",
}


def pinned(model: str, revision: str | None = None) -> dict[str, str]:
    """from_pretrained's keyword for the commit to read; none for a folder or an unlisted model.

    revision: the commit that somebody asks for, in place of the listed one.
    """
    commit = revision or PINNED.get(model)
    return {} if commit is None else {"revision": commit}
