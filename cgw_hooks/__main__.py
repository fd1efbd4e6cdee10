"""``python3 -m cgw_hooks`` is the ``cgw`` command."""

import sys

from cgw_hooks.commands.cli import main

sys.exit(main())
