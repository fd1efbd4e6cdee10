"""Gateways in a ring, with real libvirtd and guests: what only a cluster does."""
