"""Draw a process's own answers with the noise that one process would draw for the answers of all.

Token by token, one process draws a row of noise for each of the N answers that it writes. Of n processes each
writes N / n answers that follow each other, so it draws the rows of all N and takes its own: the noise of an
answer is that of its place among all, whatever n. After the last token a process draws on until it has drawn
as often as the one with the longest answer, so that what is drawn later is the same in all too.
"""
# pyright: reportPrivateImportUsage=false
# torch documents TorchFunctionMode in torch.overrides and does not list it as exported.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..together.crew import Crew


class OwnRows(TorchFunctionMode):
    """Within a block `torch.multinomial` draws one token a row, as this process's rows of a larger batch.

    crew: the processes, each with as many rows. draws: how often it was called.
    """

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self.crew, self.draws = crew, 0
        self._last: Tensor | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See the class."""
        if function is not torch.multinomial:
            return function(*args, **(kwargs or {}))
        shares: Tensor = args[0]
        self.draws, self._last = self.draws + 1, shares
        noise = self._noise().chunk(self.crew.size)[self.crew.rank]
        # torch.multinomial draws one token of a row in this very way, with these numbers.
        return (shares / noise).argmax(-1, keepdim=True)

    def draw_until(self, draws: int) -> None:
        """Draw what the process with the longest answer has drawn more than this one."""
        for _ in range(draws - self.draws):
            self._noise()

    def _noise(self) -> Tensor:
        """Exponential noise for the rows of all processes."""
        assert self._last is not None
        rows, words = self._last.shape
        return self._last.new_empty((rows * self.crew.size, words)).exponential_()


@contextmanager
def own_rows(crew: Crew) -> Iterator[None]:
    """Draw answers within a block; see the module. Every process of the crew enters it."""
    with OwnRows(crew) as mode:
        yield
    mode.draw_until(crew.most(mode.draws))
