"""A client of etcd's JSON gateway: ``client`` asks and writes, ``watch`` follows changes.

``connection`` has sockets and TLS, ``members`` the order of the members and the tokens. What is
said to etcd, and what its answers mean, is in ``core/etcd``. It needs the standard library alone.
Only the agent uses it.
"""
