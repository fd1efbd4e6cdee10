"""`make demo`: the main job, shown on a throw-away lab with a real libvirtd and real guests.

One host first (`tests.lab.demo_host`), then a cluster (`tests.lab.demo_cluster`).
"""

import signal
import sys
import time
from types import FrameType

from tests.lab import demo_cluster, demo_host
from tests.lab.debian_root import DebianRootError
from tests.lab.etcd import EtcdError
from tests.lab.host import HostError
from tests.lab.narration import DemoError, say

_INTERRUPTED = 130


def main() -> int:
    """Run the demo; the exit code is 0 if everything was as shown."""
    signal.signal(signal.SIGTERM, _end)
    started = time.monotonic()
    try:
        demo_host.show()
        say("")
        demo_cluster.show()
        say("taking the lab down")
    except KeyboardInterrupt:
        say("\ninterrupted; the lab is taken down")
        return _INTERRUPTED
    except (DemoError, HostError, DebianRootError, EtcdError, TimeoutError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    say(f"done in {time.monotonic() - started:.0f} s; nothing of it is left on this machine")
    return 0


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
