"""Compose: one module to each ``cgw`` command."""
