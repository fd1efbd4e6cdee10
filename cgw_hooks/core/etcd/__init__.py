"""etcd's language: keys and values, what is asked, how an answer is read, what a refusal means.

The form is that of etcd's JSON gateway, and the same for etcd 3.4 and 3.5. See ``host/etcd``.
"""
