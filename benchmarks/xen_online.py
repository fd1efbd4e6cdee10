"""What our part of ``online`` costs beside vif-bridge's own, in a real dom0, in the same run.

    sudo make bench

Dom0 is emulated by QEMU: only the ratios carry over. vif-bridge and vif-cgw take turns on the vif
of a running guest. For our part alone, vif-cgw stands in a folder where the vif-bridge that it
calls is ``true``: the shell that it needs is counted as ours.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.lab.xen.dom0 import Dom0
from tests.xen.host import XenHost

_CHECKOUT = Path(__file__).parent.parent
_BRIDGE = "vif-bridge itself"
#: Case -> what the guest declares.
_OURS = {
    "our part, nothing declared": "",
    "our part, 1 TCP and 1 UDP port": "cgw 2202:22/tcp 123/udp",
    "our part, 5 TCP ports": "cgw 2201:22 2202:22 2203:22 2204:22 2205:22",
}
_FOLDER = "/root/alone"
_PREPARE = f"""
mkdir -p {_FOLDER}
cp /etc/xen/scripts/vif-cgw {_FOLDER}
ln -s /bin/true {_FOLDER}/vif-bridge
"""
#: One measurement, and the way back. By ``cgw_beside`` our hook in vif-post.d keeps still.
_CALL = """
export XENBUS_PATH=backend/vif/$DOMAIN/0 vif=vif$DOMAIN.0 cgw_beside=no
export netdev='{words}'
xenstore-write $XENBUS_PATH/gatewaydev "$netdev"
begin=$(date +%s%N)
{folder}/{script} online type_if=vif >/dev/null
end=$(date +%s%N)
echo $(( (end - begin) / 1000 ))
record=/run/cgw/guests/xl-$vif.json
[ -z "$netdev" ] || [ -e $record ] # it was really published
[ {script} = vif-bridge ] || {folder}/{script} offline type_if=vif >/dev/null
"""


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What our part of a vif's online costs.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each case")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as installed:
        subprocess.run(
            ["make", "-C", str(_CHECKOUT), "install", f"DESTDIR={installed}"],
            check=True, capture_output=True,
        )  # fmt: skip
        with Dom0(own=[Path(installed)]) as dom0:
            dom0.run(["cgw", "install", "--xen"])
            _print(_measure(dom0, rounds), rounds)
    return 0


def _measure(dom0: Dom0, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each case; the first round only warms the caches."""
    host = XenHost(dom0)
    host.defines("web1", 201, "ip=10.5.5.201,script=vif-bridge")
    host.creates("web1")
    dom0.shell(f"set -e{_PREPARE}")
    number = dom0.shell("xl domid web1").strip()
    times: dict[str, list[float]] = {case: [] for case in (_BRIDGE, *_OURS)}
    for round_number in range(rounds + 1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\rround {round_number} of {rounds} ")
        for case, spent in times.items():
            words = _OURS.get(case, "")
            folder, script = (_FOLDER, "vif-cgw") if case in _OURS else (
                "/etc/xen/scripts", "vif-bridge",
            )  # fmt: skip
            call = _CALL.format(words=words, folder=folder, script=script)
            milliseconds = int(dom0.shell(f"set -e\nDOMAIN={number}{call}")) / 1000
            if round_number:
                spent.append(milliseconds)
    sys.stderr.write("\r" if sys.stderr.isatty() else "")
    return times


def _print(times: dict[str, list[float]], rounds: int) -> None:
    whole = statistics.median(times[_BRIDGE])
    table = Table(box=None, pad_edge=False)
    table.add_column("ONLINE OF A VIF, IN DOM0")
    for heading in ("MEDIAN ms", "RATIO"):
        table.add_column(heading, justify="right")
    for case, spent in times.items():
        median = statistics.median(spent)
        table.add_row(case, f"{median:.0f}", f"{median / whole:.2f}")
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print(f"{rounds} rounds; ratios to vif-bridge in the same run.")


if __name__ == "__main__":
    sys.exit(main())
