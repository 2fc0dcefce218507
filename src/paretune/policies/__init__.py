"""The only code that differs from model to model."""

import os

# The libraries' advice on import (a missing torchvision, say) is not what a user of ours can act on.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
