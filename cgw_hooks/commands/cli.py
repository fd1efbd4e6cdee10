"""The ``cgw`` command: its arguments, what it prints, how it ends.

``cgw hook`` runs whenever a guest starts or stops: it is told apart before
anything else is imported.
"""

import os
import sys


def main() -> int:
    """Run ``cgw`` with the process's arguments; return the exit code."""
    if sys.argv[1:2] == ["hook"] and sys.argv[2:3] not in (["-h"], ["--help"]):
        from cgw_hooks.commands import hook

        code = hook.main(sys.argv[2:])
        if sys.stderr:  # None where it is closed
            sys.stderr.flush()
        # libvirt waits: the interpreter's own end takes 6 ms, and holds nothing of ours.
        os._exit(code)

    from cgw_hooks.commands import terminal

    return terminal.main(sys.argv[1:])
