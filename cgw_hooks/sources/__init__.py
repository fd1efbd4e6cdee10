"""The sources of guests: each module reads one source and returns guests or problems."""
