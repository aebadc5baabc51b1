"""The ``codedtool`` console script, and ``python -m codedtool``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is imported ends in 130 too, as within a command."""
    try:
        # Python does not look for cycles among its objects until a command's body begins: a tenth of the imports' time.
        gc.disable()
        from codedtool.cli import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
