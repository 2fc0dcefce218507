"""Skywork's public reward models of answers (arXiv 2410.18451, 2507.01352), with their own chat templates.

They are sequence classifiers of one value without a bound, so that this is `text_model` with their template.
"""

from __future__ import annotations

from .reward_models import TextModelReward


class Skywork(TextModelReward):
    """The value that a Skywork-Reward model gives a prompt and its answer.

    model: any of the series, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B. squash, revision: see
    `TextModelReward`.
    """

    name = "skywork"

    def __init__(
        self,
        model: str = "Skywork/Skywork-Reward-V2-Qwen3-0.6B",
        squash: bool = False,
        max_length: int | None = 4096,
        batch_size: int = 8,
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(
            model, "chat", squash, max_length, batch_size, dtype=dtype, device=device, revision=revision
        )
