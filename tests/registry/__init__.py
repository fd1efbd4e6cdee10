"""The registry of the cluster: the client of etcd, and nodes whose agents speak to it."""
