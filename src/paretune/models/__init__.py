"""The only code that differs from model to model."""

import logging
import os

# The libraries' advice on import (a missing torchvision, say) is not what a user of ours can act on.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
# Where torchao is installed, importing transformers tells of kernels that are not for this machine.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
