"""What the hub refuses, in one line that says what to do: a gated model, an unknown name or revision."""

from __future__ import annotations

from collections.abc import Iterator


def refusal(error: BaseException, place: str) -> str | None:
    """The end of a message about a model or a dataset that the hub does not give; None for other errors."""
    chain = list(_chain(error))
    names = {type(one).__name__ for one in chain}
    text = " ".join(str(one) for one in chain)
    if "GatedRepoError" in names or "gated repo" in text:
        return gated(place)
    if "RevisionNotFoundError" in names:
        return f"the hub has no such revision of {place}"
    if "RepositoryNotFoundError" in names:
        return (
            f"the hub has no {place}, or it is private: check the name, and if it is yours log in with "
            "`hf auth login`"
        )
    if "HFValidationError" in names or "Repo id must" in text:
        return f"there is no folder {place}, and it is no name of a model on the hub (OWNER/NAME)"
    return None


def gated(place: str) -> str:
    """What to do about a gated model: without a login, or with one that has no access."""
    from huggingface_hub import get_token

    page = f"https://huggingface.co/{place}"
    if get_token() is None:
        return f"{place} is gated and nobody is logged in: accept its licence at {page}, then `hf auth login`"
    return f"{place} is gated and this login has no access yet: accept its licence at {page}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
