"""The models: one record per family, detection, loading, policies and their adapters."""

import logging
import os

# The libraries give advice on import (of a missing torchvision, for example) that a user cannot act on.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
# If torchao is installed, importing transformers logs kernels that do not suit this machine.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
