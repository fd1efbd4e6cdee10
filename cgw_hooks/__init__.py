"""Published ports for virtual machines, added and removed by the hypervisor's own hooks.

The folders are rings, listed from the innermost. A module imports only from its own ring and the
rings inside it (tests/unit/test_structure.py checks this):

- ``errors`` and ``core``: pure values and decisions. No file, socket, clock or process.
- ``host``: one module per outside thing (the state under /run, nft, libvirt, ...).
- ``sources``: where guests come from.
- ``node``: what this node does, and the only place that knows the order of steps.
- ``commands``: what a person or a hypervisor calls.

This file must not import anything: each hook call would pay for the import.
"""

__version__ = "0.1.0"
