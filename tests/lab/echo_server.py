"""A server that answers as the lab's guest does; run in a process of its own by `tests.lab.server`.

`run` takes the arguments NAME PROTOCOL ADDRESS PORT, PROTOCOL being tcp, tcp-echo, udp or sctp. It
prints a line when it serves, and ends when its standard input does.
"""

import os
import socket
import sys
import threading

from tests.lab import sctp
from tests.lab.reply import format_answer

_LONGEST_MESSAGE = 65536


def main(name: str, protocol: str, address: str, port: str) -> None:
    """Serve until standard input ends."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    serving = {"tcp": _serve_tcp, "tcp-echo": _serve_echo, "udp": _serve_udp, "sctp": _serve_sctp}
    kinds = {"udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_RAW}
    raw_protocol = sctp.PROTOCOL if protocol == "sctp" else 0
    endpoint = socket.socket(family, kinds.get(protocol, socket.SOCK_STREAM), raw_protocol)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    endpoint.bind((address, 0 if protocol == "sctp" else int(port)))
    if protocol.startswith("tcp"):
        endpoint.listen(128)
    arguments = (endpoint, name, int(port))
    threading.Thread(target=serving[protocol], args=arguments, daemon=True).start()
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


def _serve_tcp(endpoint: socket.socket, name: str, _port: int) -> None:
    while True:
        connection, peer = endpoint.accept()
        answer = format_answer(name, "tcp", peer[0], peer[1]) + "\n"
        threading.Thread(target=_answer_and_drain, args=(connection, answer), daemon=True).start()


def _answer_and_drain(connection: socket.socket, answer: str) -> None:
    """Closing with unread input would reset the connection, and could take the answer with it."""
    with connection:
        try:
            connection.sendall(answer.encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(_LONGEST_MESSAGE):
                pass
        except OSError:
            pass


def _serve_echo(endpoint: socket.socket, _name: str, _port: int) -> None:
    while True:
        connection, _peer = endpoint.accept()
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(_LONGEST_MESSAGE):
                connection.sendall(data)
        except OSError:
            pass


def _serve_udp(endpoint: socket.socket, name: str, _port: int) -> None:
    while True:
        payload, peer = endpoint.recvfrom(_LONGEST_MESSAGE)
        answer = format_answer(name, "udp", peer[0], peer[1]).encode()
        endpoint.sendto(answer + b" " + payload, peer)


def _serve_sctp(endpoint: socket.socket, name: str, port: int) -> None:
    while True:
        data, peer = endpoint.recvfrom(_LONGEST_MESSAGE)
        packet = sctp.parse(sctp.without_ip_header(endpoint.family, data))
        if packet.destination_port != port:
            continue
        prefix = format_answer(name, "sctp", peer[0], packet.source_port).encode() + b" "
        reply = sctp.answer_packet(packet, prefix)
        if reply:
            endpoint.sendto(reply.packed(), (peer[0], 0))


def run() -> None:
    """Serve as the program's arguments say."""
    main(*sys.argv[1:])
