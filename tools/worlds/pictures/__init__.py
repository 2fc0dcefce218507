"""The programs that made the committed checkpoint. Not needed to use it: `python -m ...build.train`."""
