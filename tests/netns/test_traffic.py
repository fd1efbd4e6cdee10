"""The traffic that the lab's migrations run under tells how long a guest was silent."""

import signal
import time
from contextlib import ExitStack

import pytest

from tests.lab.namespace import namespace
from tests.lab.server import serve
from tests.lab.traffic import Ports, Stream, traffic

pytestmark = pytest.mark.netns

HERE = "127.0.0.1"
PORTS = Ports(session=7, connection=80, datagram=123)
SILENCE = 0.5


def test_a_stream_that_dies_is_silent_until_the_end() -> None:
    """Its last gap is open when the traffic ends, and counts; the other streams have none."""
    with ExitStack() as until_end:
        inside = until_end.enter_context(namespace("traffic"))
        for protocol, port in (("tcp-echo", PORTS.session), ("tcp", PORTS.connection)):
            until_end.enter_context(serve(inside, HERE, protocol, port, "web1"))
        datagrams = until_end.enter_context(serve(inside, HERE, "udp", PORTS.datagram, "web1"))
        with traffic(inside, {HERE: HERE}, PORTS, "web1") as streams:
            datagrams.send_signal(signal.SIGSTOP)
            died = time.monotonic()
            time.sleep(SILENCE)
        gaps = {stream.kind: stream.longest_gap for stream in streams}
        assert gaps["UDP exchange"] >= SILENCE - 0.1, gaps
        assert [s.kind for s in streams if s.answers[-1] < died + 0.1] == ["UDP exchange"]
        assert [stream.failures for stream in streams] == [[], [], []]


@pytest.mark.parametrize(
    ("answers", "ended", "gap"),
    [
        ([1.0, 1.5, 4.0], 4.1, 2.5),  # closed before the end
        ([1.0, 1.5], 9.5, 8.0),  # still open at the end
        ([1.0, 3.0], 2.5, 2.0),  # an answer that was under way at the end
        ([], 5.0, 0.0),
    ],
)
def test_the_longest_gap(answers: list[float], ended: float, gap: float) -> None:
    assert Stream("", "", "", answers, ended=ended).longest_gap == gap
