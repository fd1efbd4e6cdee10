"""Xen's vif script hands its calls to the agent, as libvirt's hook script does."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.libvirt.waiting import eventually
from tests.netns.agent import CLIENT as HOOK_CLIENT
from tests.netns.agent import running_agent
from tests.netns.asker import REFUSED, Asker
from tests.netns.clean import assert_as_recorded
from tests.netns.configs import CLIENT, NODE
from tests.netns.guest import Finished
from tests.netns.node import CGW, PYTHON, Node
from tests.scripts.dom0 import BACKEND, Dom0

pytestmark = pytest.mark.netns

OCTET = 201
ANSWER = f"web1 saw {CLIENT[4]}"
REFUSED_BY_XL = 1
SCRIPTS = ["vif-cgw", "vif-bridge"]
Call = Callable[..., Finished]


@pytest.fixture
def dom0(node: Node) -> Dom0:
    """web1's vif 3.0 is on the wire."""
    node.guest("web1", serves="22/tcp 53/udp", octet=OCTET)
    folder = node.folder / "dom0"
    folder.mkdir()
    made = Dom0(folder)
    made.installs(PYTHON, CGW, HOOK_CLIENT)
    return made


@pytest.fixture(params=SCRIPTS)
def call(node: Node, dom0: Dom0, request: pytest.FixtureRequest) -> Call:
    """Runs the vif script for web1; what xl would be told."""

    def run(command: str, words: str = "2202:22 5300:53/udp") -> Finished:
        told = dom0.root / "store" / BACKEND / "hotplug-error"
        told.unlink(missing_ok=True)
        variables = node.environment()
        variables["PATH"] = f"{dom0.root}/bin:{variables['PATH']}"
        done = dom0.run(
            request.param,
            command,
            netdev=f"cgw {words}" if words else "",
            enter=node.namespace.enter_command(),
            variables=variables,
        )
        assert (b"", b"") == (done.stdout, done.stderr)
        return Finished(done.returncode, dom0.status()[1])

    return run


def let_only_the_agent_work(dom0: Dom0) -> Path:
    """Let `cgw hook` do nothing but leave a trace, which is returned."""
    trace, program = dom0.root / "trace", dom0.root / "cgw-that-notes"
    program.write_text(f"open({str(trace)!r}, 'a').write('called\\n')\n")
    dom0.installs(PYTHON, program, HOOK_CLIENT)
    return trace


def test_the_agent_carries_out_what_a_vif_needs(
    client: Asker, node: Node, dom0: Dom0, call: Call
) -> None:
    done = Finished(0, "")
    with running_agent(node):
        trace = let_only_the_agent_work(dom0)
        for _ in range(2):
            assert call("online") == done
            assert ANSWER == client.asks(NODE[4], 2202) == client.asks(NODE[4], 5300, "udp")
            assert_as_recorded(node)
            assert call("offline") == done
            assert REFUSED == client.asks(NODE[4], 2202)
            assert node.files() == {}
        assert not trace.exists()


def test_the_agent_reads_the_guests_file_in_guests_d(
    client: Asker, node: Node, dom0: Dom0, call: Call
) -> None:
    files = node.folder / "guests.d"
    files.mkdir()
    (files / "web1.xml").write_text(
        '<publish><portForward proto="tcp"><range start="2203" to="22"/></portForward></publish>'
    )
    with running_agent(node):
        trace = let_only_the_agent_work(dom0)
        assert call("online", words="") == Finished(0, "")
        assert ANSWER == client.asks(NODE[4], 2203)
        assert call("offline", words="") == Finished(0, "")
        assert REFUSED == client.asks(NODE[4], 2203)
        assert not trace.exists()


@pytest.mark.parametrize("words", ["2202:22", "70000:22", " "])
def test_a_refusal_by_the_agent_reads_like_one_without_it(
    node: Node, dom0: Dom0, call: Call, words: str
) -> None:
    rival = node.guest("web2", "2202:22")
    assert rival.hook("prepare").exit_code == 0
    alone = call("online", words)
    with running_agent(node):
        trace = let_only_the_agent_work(dom0)
        assert call("online", words) == alone
        assert not trace.exists()
        assert [rival.key] == list(node.records())
    assert alone.exit_code == REFUSED_BY_XL
    assert alone.complaint.startswith('cgw: guest "web1": ')
    rival.hook("release")


def test_without_an_agent_and_with_a_stopped_one_the_script_does_it_itself(
    client: Asker, node: Node, dom0: Dom0, call: Call
) -> None:
    done = Finished(0, "")
    with running_agent(node) as agent:
        agent.signal(signal.SIGSTOP)
        assert call("online") == done
        assert ANSWER == client.asks(NODE[4], 2202)
        assert call("offline") == done
        assert REFUSED == client.asks(NODE[4], 2202)
        agent.signal(signal.SIGCONT)
        # It takes up the calls that were given up, in order, and acts on none of them.
        let_only_the_agent_work(dom0)
        assert eventually(lambda: call("online") == done and "xl-vif3.0" in node.records())
        agent.signal(signal.SIGKILL)
        agent.wait()
        dom0.installs(PYTHON, CGW, HOOK_CLIENT)
        assert call("offline") == done
        assert REFUSED == client.asks(NODE[4], 2202)
    (node.runtime / "agent.sock").unlink()
