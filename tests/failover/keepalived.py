"""keepalived on a node, with the example of docs/examples/keepalived."""

import re
import subprocess

from tests.netns.node import CHECKOUT, Node

EXAMPLE = CHECKOUT / "docs/examples/keepalived"
_STARTUP_DELAY = "vrrp_startup_delay 5"
_ROW = re.compile(r"^# +(node\d) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)


class Keepalived:
    """The daemon of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        folder = node.folder / "keepalived"
        folder.mkdir()
        script = folder / "cgw-failover"
        self.said = folder / "said"
        text = (EXAMPLE / "cgw-failover").read_text().replace("/run/cgw", str(node.runtime))
        script.write_text(text.replace("#!/bin/sh\n", f"#!/bin/sh\nexec >>{self.said} 2>&1\n", 1))
        script.chmod(0o755)
        config = folder / "keepalived.conf"
        config.write_text(_config(node.name).replace("/etc/keepalived/cgw-failover", str(script)))
        files = [f"--pid={folder}/pid", f"--vrrp_pid={folder}/vrrp.pid"]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*node.namespace.enter_command(), "keepalived", "--dont-fork", "--log-console",
                 "--log-detail", f"--use-file={config}", *files],
                env=node.environment(), stdout=log, stderr=log,
            )  # fmt: skip

    def stands_for(self, name: str) -> bool:
        """Whether keepalived has said last that this host stands in for a node."""
        try:
            return (self._node.runtime / f"keepalived-{name}").read_text() == "MASTER\n"
        except FileNotFoundError:
            return False

    def stop(self) -> None:
        """End it, with its children."""
        self.process.terminate()
        self.process.wait()


def _config(name: str) -> str:
    """The example, which is node2's, for a node: with the priorities of its table."""
    text = (EXAMPLE / "keepalived.conf").read_text()
    priorities = {row[1]: row.groups()[1:] for row in _ROW.finditer(text)}
    assert re.findall(r"^    priority (\d+)$", text, re.MULTILINE) == [*priorities["node2"]]
    assert _STARTUP_DELAY in text
    own = iter(priorities[name])
    text = re.sub(r"(?<=    priority )\d+$", lambda _: next(own), text, flags=re.MULTILINE)
    text = text.replace("router_id node2", f"router_id {name}")
    return text.replace(_STARTUP_DELAY, "vrrp_startup_delay 0.5")
