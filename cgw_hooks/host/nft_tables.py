"""The names of the nftables tables that the kernel has, and of their chains and sets.

``nft list tables`` (1.0.6) first reads all elements of all tables: 150 ms beside 18,000 elements.
Source: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import struct

from cgw_hooks.host import netlink

_GET_TABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_MESSAGE = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
_NAME = 1  # NFTA_TABLE_NAME
#: Word of nft -> message that lists all, and the attribute that is the object's name:
#: NFT_MSG_GETCHAIN, NFTA_CHAIN_NAME; NFT_MSG_GETSET, NFTA_SET_NAME.
_KINDS = {"chain": (10 << 8 | 4, 3), "set": (10 << 8 | 10, 2)}
_TABLE = 1  # NFTA_CHAIN_TABLE, NFTA_SET_TABLE
#: NFPROTO_* of include/uapi/linux/netfilter.h, as nft writes them.
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def table_names() -> set[str]:
    """Return the tables of this network namespace, for example ``inet cgw``.

    Raises ``OSError`` if the kernel does not answer.
    """

    def read(payload: memoryview) -> str:
        return _full_name(payload[0], netlink.attributes(payload[_MESSAGE.size :])[_NAME])

    with netlink.Channel(netlink.NETFILTER) as channel:
        return set(channel.dump(_GET_TABLE, _MESSAGE.pack(0, 0, 0), read))


def object_names(kind: str) -> set[tuple[str, str]]:
    """Return table and name of all chains, or of all sets and maps (``kind``: chain, set).

    Raises ``OSError`` if the kernel does not answer.
    """
    message, attribute = _KINDS[kind]

    def read(payload: memoryview) -> tuple[str, str]:
        found = netlink.attributes(payload[_MESSAGE.size :])
        return _full_name(payload[0], found[_TABLE]), _text(found[attribute])

    with netlink.Channel(netlink.NETFILTER) as channel:
        return set(channel.dump(message, _MESSAGE.pack(0, 0, 0), read))


def _full_name(family: int, name: bytes | memoryview) -> str:
    return f"{_FAMILIES.get(family, family)} {_text(name)}"


def _text(value: bytes | memoryview) -> str:
    return bytes(value).rstrip(bytes(1)).decode()
