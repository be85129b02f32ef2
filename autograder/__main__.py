"""The command `autograder`, and `python -m autograder`."""

import signal
import sys


def main() -> int:
    """Run the command; while it is loaded, Ctrl-C ends it without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from autograder.loading import load

    command = load("autograder.cli")
    signal.signal(signal.SIGINT, handler)
    status: int = command.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
