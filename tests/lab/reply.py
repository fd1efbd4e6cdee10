"""The outcome of asking a port: the parsed answer, or why there was none."""

import re
from dataclasses import dataclass
from enum import Enum

_ANSWER = re.compile(r"(.*) (tcp|udp|sctp) (\[[0-9a-f.:]+\]|[0-9.]+):(\d+)\s?(.*)", flags=re.DOTALL)


class Outcome(Enum):
    """How a client's question to a port ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """A reset, an ABORT, or ICMP "port unreachable"."""
    UNREACHABLE = "unreachable"
    """ICMP "host unreachable", "administratively prohibited" or no route."""
    TIMED_OUT = "timed out"
    CUT_OFF = "cut off"
    """Connected, then closed or reset without an answer."""


@dataclass(frozen=True)
class Reply:
    """The outcome; with an answer, who gave it and which peer it saw."""

    outcome: Outcome
    guest: str = ""
    protocol: str = ""
    peer: str = ""
    peer_port: int = 0
    payload: str = ""

    @property
    def answered(self) -> bool:
        """Whether there was an answer."""
        return self.outcome is Outcome.ANSWERED


def parse_reply(text: str) -> Reply:
    """Parse `NAME PROTOCOL REMOTE:PORT PAYLOAD`; an IPv6 peer is in brackets."""
    match = _ANSWER.fullmatch(text)
    if not match:
        return Reply(Outcome.CUT_OFF, payload=text)
    guest, protocol, peer, port, payload = match.groups()
    return Reply(Outcome.ANSWERED, guest, protocol, peer.strip("[]"), int(port), payload)


def format_answer(guest: str, protocol: str, peer: str, peer_port: int) -> str:
    """The answer of a server of this name to this peer."""
    shown = f"[{peer}]" if ":" in peer else peer
    return f"{guest} {protocol} {shown}:{peer_port}"
