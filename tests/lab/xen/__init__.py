"""A real Xen with a real dom0 and real guests, in one QEMU process: `tests.lab.xen.dom0`."""
