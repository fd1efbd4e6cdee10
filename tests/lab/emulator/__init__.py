"""Whole machines inside QEMU, under TCG: they boot once, and each run goes on from there."""
