"""Published ports for virtual machines, kept by the hypervisor's own hooks.

Three rings, and a module imports only inward (tests/unit/test_structure.py
holds it to that):

- ``core``: pure values and decisions. No file, socket, clock or process.
- ``host``: one module to each outside thing (record files, nft, libvirt, ...).
- ``commands``: what a person or a hypervisor calls, composed of the two.

Keep this file empty of imports: a hook call pays for every one.
"""

__version__ = "0.1.0"
