"""Loaded by the process of which the trainers of `tests.together` are forks."""

from tests.libraries import load

load()

import tests.integration.test_language_together  # noqa: E402
import tests.integration.test_together  # noqa: E402, F401
