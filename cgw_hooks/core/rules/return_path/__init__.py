"""Ways to return a guest's answers to the node where the client came in: one module per way."""
