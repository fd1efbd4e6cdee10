"""A client of etcd's JSON gateway: ``client`` asks and writes, ``watch`` follows changes.

It needs the standard library alone, and works alike with etcd 3.4 and 3.5. Only the agent uses it.
"""
