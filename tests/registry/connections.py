"""The connections of the namespace that the test runs in."""

import subprocess

from tests.lab.etcd_member import CLIENT_PORT


def connections() -> set[tuple[str, str]]:
    """Those to members: the own port of each, and the member's address."""
    options = ["-Htn", "state", "established", "dport", "=", str(CLIENT_PORT)]
    listed = subprocess.run(["ss", *options], check=True, capture_output=True, text=True).stdout
    ends = [line.split()[-2:] for line in listed.splitlines()]
    return {(own.rpartition(":")[2], peer.rpartition(":")[0]) for own, peer in ends}
