"""The outermost ring: one module per ``cgw`` command."""
