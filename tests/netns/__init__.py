"""Real kernel, real sockets, real nftables: the hook, called in namespaces that the tests make."""
