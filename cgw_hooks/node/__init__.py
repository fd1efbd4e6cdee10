"""What this node does. Only this ring knows the order of the steps."""
