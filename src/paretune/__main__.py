"""The command `paretune`, and `python -m paretune`."""

import sys


def main() -> None:
    """Entry point. Ctrl-C while the libraries load ends like everywhere else: code 130 and no traceback."""
    try:
        from .cli.app import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
