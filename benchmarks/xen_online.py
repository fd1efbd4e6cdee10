"""What our part of ``online`` costs beside vif-bridge's own, in a real dom0, in the same run.

sudo .venv/bin/python -m benchmarks.xen_online
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.xen.dom0 import Dom0
from tests.xen.host import XenHost

_CHECKOUT = Path(__file__).parent.parent
_ROUNDS = 15
_ONLINE = """
export XENBUS_PATH=backend/vif/$DOMAIN/0 vif=vif$DOMAIN.0 netdev='cgw 2202:22/tcp 123/udp' {env}
begin=$(date +%s%N)
/etc/xen/scripts/{script} online type_if=vif >/dev/null
echo $(( ($(date +%s%N) - begin) / 1000 ))
"""


def main() -> int:
    """Measure both scripts by turns and print the medians."""
    with tempfile.TemporaryDirectory() as installed:
        subprocess.run(
            ["make", "-C", str(_CHECKOUT), "install", f"DESTDIR={installed}"],
            check=True, capture_output=True,
        )  # fmt: skip
        with Dom0(own=[Path(installed)]) as dom0:
            dom0.run(["cgw", "install", "--xen"])
            host = XenHost(dom0)
            host.defines("web1", 201, "ip=10.5.5.201,script=vif-cgw,gatewaydev=cgw 2202:22/tcp")
            host.creates("web1")
            times: dict[str, list[float]] = {"vif-bridge": [], "vif-cgw": []}
            for _ in range(_ROUNDS):
                for script, spent in times.items():
                    text = _ONLINE.format(script=script, env="cgw_beside=no")
                    domain = "DOMAIN=$(xl domid web1)\n"
                    spent.append(int(dom0.shell(domain + text)) / 1000)
    bridge, both = (statistics.median(spent) for spent in times.values())
    sys.stdout.write(
        f"vif-bridge {bridge:.0f} ms, our part of vif-cgw {both - bridge:.0f} ms "
        f"(medians of {_ROUNDS} in one dom0)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
