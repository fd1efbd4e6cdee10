"""A throw-away lab: real libvirtd and real QEMU guests in namespaces and Debian roots of their own.

Nothing here touches the machine's own network, firewall or libvirt. Begin with `tests.lab.lab`.
"""
