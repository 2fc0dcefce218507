"""Pure tensor functions: torch only, nothing of ours, no files and no models."""
