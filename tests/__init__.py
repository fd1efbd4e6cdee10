"""The tests; `tests.lab` is the lab that some of them run in."""
