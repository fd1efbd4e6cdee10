"""The agent's part in the cluster: it makes the registry match this node, and this node match it.

``follower`` is the thread, with one ``session`` for each config. ``outbox`` is what this node
writes, ``watcher`` hears what others write, ``presence`` tells others that this node is there.
"""
