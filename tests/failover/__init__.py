"""Gateways that die: another one carries their addresses and connections on."""
