"""Effects: one module per outside thing; none imports another."""
