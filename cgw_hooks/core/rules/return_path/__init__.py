"""How a guest's answers find back to the node where the client came in: one module each."""
