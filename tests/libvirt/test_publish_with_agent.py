"""`cgw publish` beside the agent: both change the same guest, and the agent takes ports back."""

import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.lab.client import PATIENCE_FOR_SILENCE
from tests.lab.domain import nat_network_xml
from tests.lab.lab import open_lab
from tests.lab.network import CLIENT_ADDRESS
from tests.libvirt.conftest import SUITES
from tests.libvirt.hypervisor import Guest
from tests.libvirt.test_libvirt_networks import NETWORK
from tests.libvirt.test_publish import OCTET, PublishHost
from tests.libvirt.waiting import eventually
from tests.netns.asker import spoken
from tests.netns.configs import NODE

pytestmark = pytest.mark.libvirt

SEEN = f"web1 saw {CLIENT_ADDRESS}"
PID_FILE = "/run/agent.pid"


class AgentHost(PublishHost):
    """A host whose agent runs."""

    agent: "subprocess.Popen[str]"

    def start_agent(self) -> None:
        """Start the agent."""
        script = f"echo $$ >{PID_FILE}; exec cgw agent >/var/log/agent 2>&1"
        self.agent = self.node.popen(["sh", "-c", script])
        assert eventually(self.node.path("/run/cgw/agent.sock").exists)

    def kill_agent(self) -> None:
        """Kill it (SIGKILL)."""
        self.shell(f"kill -KILL $(cat {PID_FILE})")
        self.agent.wait()


@pytest.fixture(scope="module", params=SUITES)
def host(request: pytest.FixtureRequest) -> Iterator[AgentHost]:
    with open_lab(request.param) as lab:
        made = AgentHost(lab)
        made.node.start_network(NETWORK, nat_network_xml(NETWORK))
        made.start_agent()
        yield made
        assert made.agent.poll() is None
        made.kill_agent()


@pytest.fixture(scope="module")
def web1(host: AgentHost) -> Iterator[Guest]:
    """A guest that has just started; nothing of what it publishes may be left."""
    before = host.traces()
    guest = host.add("web1", OCTET)
    guest.start()
    yield guest
    host.remove_guests()
    assert before == host.traces()


def answers(host: AgentHost, port: int) -> bool:
    return spoken(host.client.until_answered("tcp", NODE[4], port)) == SEEN


def is_taken_back(host: AgentHost, port: int) -> bool:
    reply = host.client.until_closed("tcp", NODE[4], port)
    return not reply.answered and eventually(
        lambda: all(str(port) not in place for place in host.metadata())
    )


@pytest.mark.usefixtures("web1")
@pytest.mark.on_both_suites
def test_a_port_opens_with_the_first_lease(host: AgentHost) -> None:
    host.cgw("publish", "web1", "8080:80")
    assert answers(host, 8080)


@pytest.mark.usefixtures("web1")
def test_a_port_is_taken_back_after_its_time(host: AgentHost) -> None:
    host.cgw("publish", "web1", "8080:80")
    assert answers(host, 8080)  # it has booted
    host.cgw("publish", "web1", "7007:7", "--for", "5s")
    with host.client.tcp_session(NODE[4], 7007) as session:
        assert session.exchange("one") == "one"
        assert is_taken_back(host, 7007)
        with pytest.raises((TimeoutError, ConnectionError)):
            session.exchange("two", timeout=PATIENCE_FOR_SILENCE)
    assert answers(host, 8080)


@pytest.mark.usefixtures("web1")
def test_a_port_is_taken_back_though_the_agent_was_killed_in_between(host: AgentHost) -> None:
    host.cgw("publish", "web1", "7007:7", "--for", "3s")
    host.kill_agent()
    assert eventually(lambda: host.status_of(7007) == "expired")
    host.start_agent()
    assert is_taken_back(host, 7007)


@pytest.mark.usefixtures("web1")
def test_the_agent_and_many_commands_at_once_lose_nothing(host: AgentHost) -> None:
    wanted = range(8100, 8106)
    for command in ("publish", "unpublish"):
        threads = [
            threading.Thread(
                target=host.cgw,
                args=(command, "web1", f"{port}:80" if command == "publish" else str(port)),
            )
            for port in wanted
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        is_open = command == "publish"
        assert {host.asks(port) == SEEN for port in wanted} == {is_open}
        assert {str(port) in place for port in wanted for place in host.metadata()} == {is_open}
    assert host.status()["web1"]["state"] == "published"
