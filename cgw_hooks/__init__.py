"""Published ports for virtual machines, kept by the hypervisor's own hooks.

Rings, the innermost first; a module imports only inward (tests/unit/test_structure.py
holds it to that):

- ``errors`` and ``core``: pure values and decisions. No file, socket, clock or process.
- ``host``: one module to each outside thing (the state under /run, nft, libvirt, ...).
- ``sources``: where guests come from.
- ``node``: what this node does, and the only place that knows the order of steps.
- ``commands``: what a person or a hypervisor calls.

Keep this file empty of imports: a hook call pays for every one.
"""

__version__ = "0.1.0"
