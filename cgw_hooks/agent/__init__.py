"""The resident process: it serves hook calls, and follows what no hook tells of."""
