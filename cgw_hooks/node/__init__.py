"""What this node does: the only ring that knows the order of steps."""
