"""`python -m paretune` is the command `paretune`."""

from .cli.app import main

main()
