"""What digests of a run know a reward's options by: not by the address of a server, but by what it scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .table import ELSEWHERE


def options_identity(spec: str, options: Mapping[str, Any]) -> Any:
    """The options, for a digest. A remote reward adds the digest that its server gives, which is asked now.

    So a run goes on with another address of the same reward, and refuses what another reward decided.
    Raises RewardError where no server answers.
    """
    kept = {key: value for key, value in options.items() if key not in ELSEWHERE.get(spec, ())}
    if spec != "remote":
        return kept
    from .remote.client import server_digest

    return [kept, server_digest(**options)]
