"""What cgw's part of ``online`` costs, relative to vif-bridge's own, in a real dom0, in one run.

    sudo make bench

QEMU emulates dom0, so only the ratios hold elsewhere. vif-bridge and vif-cgw take turns on the
vif of a running guest. To measure cgw's part alone, vif-cgw is in a folder where the vif-bridge
that it calls is ``true``: the shell that it needs counts as cgw's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.turns import print_ratios, take_turns
from tests.lab.xen.dom0 import Dom0
from tests.xen.host import XenHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHECKOUT = Path(__file__).parent.parent
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
            times = take_turns(dict(_cases(dom0)), rounds, warm_up=1)
    print_ratios(
        "ONLINE OF A VIF, IN DOM0", times, f"{rounds} rounds; ratios to vif-bridge in the same run."
    )
    return 0


def _cases(dom0: Dom0) -> Iterator[tuple[str, Callable[[], float]]]:
    """Name and action of each case; an action gives its seconds."""
    host = XenHost(dom0)
    host.define("web1", 201, "ip=10.5.5.201,script=vif-bridge")
    host.create("web1")
    dom0.shell(f"set -e{_PREPARE}")
    number = dom0.shell("xl domid web1").strip()

    def online(folder: str, script: str, words: str) -> float:
        call = _CALL.format(words=words, folder=folder, script=script)
        return int(dom0.shell(f"set -e\nDOMAIN={number}{call}")) / 1e6

    yield "vif-bridge itself", partial(online, "/etc/xen/scripts", "vif-bridge", "")
    for case, words in _OURS.items():
        yield case, partial(online, _FOLDER, "vif-cgw", words)


if __name__ == "__main__":
    sys.exit(main())
