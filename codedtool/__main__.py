"""The ``codedtool`` console script, and ``python -m codedtool``."""

from __future__ import annotations

import gc
import signal
import sys

from codedtool.interrupts import signals_handled, was_interrupted


def main() -> None:
    """Run the command line; Ctrl-C while it is imported ends in 130 too, as within a command."""
    # In a process that a shell script starts in the background, Ctrl-C is ignored, and stays so.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        with signals_handled({signal.SIGINT: signal.default_int_handler} if is_usual else {}):
            # Python does not look for cycles among its objects until a command's body begins: a tenth of the imports'
            # time.
            gc.disable()
            from codedtool.cli import main as run

            run()
    except (KeyboardInterrupt, Exception) as error:
        if not isinstance(error, KeyboardInterrupt) and not was_interrupted():
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
