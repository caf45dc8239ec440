"""`python -m charrnn` is the command."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load the command and run it; Ctrl-C is heard quietly even before it is loaded."""
    try:
        from charrnn.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
