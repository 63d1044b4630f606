"""The command `landscape`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The toolkit's own packages come first, also where the user's PYTHONPATH names a folder with an `analysis` of its own.
_HOME = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [_HOME, *(entry for entry in sys.path if entry != _HOME)]


def main() -> None:
    """Runs the command line. Errors end it with one sentence on stderr and status 2, success with 0."""
    from cli.errors import sentence

    try:
        from cli.commands import app

        status = app(standalone_mode=False)
    except BaseException as error:
        if os.environ.get("LANDSCAPE_DEBUG"):
            raise
        print(f"landscape: {sentence(error)}", file=sys.stderr)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)
