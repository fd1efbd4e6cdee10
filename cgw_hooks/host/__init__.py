"""Effects: one module to each outside thing; none imports another."""
