"""An executor of one's own: one task after another, in this process. Handy under a debugger."""

from typing import Self

from paretune.environment import choose_device


class OneByOne:
    def __init__(self, workers, threads, device):
        self.device = choose_device(device)  # "cpu" or "cuda"
        self._threads = threads

    def __enter__(self) -> Self:
        import torch

        torch.set_num_threads(self._threads)  # part of what makes runs equal
        return self

    def __exit__(self, kind, error, traceback) -> None:
        pass

    def map(self, function, tasks, report):
        """Every task's result, in the order of the tasks. report: takes their events."""
        return [function(task, report, lambda: False, [self.device] * task.devices) for task in tasks]
