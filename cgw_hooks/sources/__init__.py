"""Where guests come from: each module reads one source and gives guests, or problems."""
