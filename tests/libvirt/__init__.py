"""Tests with a real libvirtd and real guests; run as root."""
