"""Builds what is released: the Debian packages, the wheel, the source archive, their checksums.

Everything is built in a Debian root of its own, without a network and always at the same path. So
the machine needs no build tools, and the same commit gives the same bytes on every machine.
"""
