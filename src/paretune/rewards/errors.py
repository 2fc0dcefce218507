"""What goes wrong with a reward, each told in one line."""

from __future__ import annotations

from paretune.types import ParetuneError


class RewardError(ParetuneError):
    """A reward failed on some samples: the message names the reward and a prompt it failed on."""


class RewardTimeout(RewardError):
    """A reward did not answer in time. More time may be all that it needs, so going on makes sense."""


LATE = "give it longer by executor.reward_timeout, or by --timeout of `paretune score`"
