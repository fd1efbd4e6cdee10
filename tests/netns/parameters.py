"""Parameters of many tests."""

import pytest

from tests.netns.configs import FULL_NAT, NONE

families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
configs = pytest.mark.parametrize("config", [NONE, FULL_NAT], ids=["no-config", "full-nat"])
#: Whether bridged packets meet the rules of routed ones: they do if Docker or Kubernetes runs.
bridgings = pytest.mark.parametrize("bridging", [False, True], ids=["routed", "br_netfilter"])
