"""Tests of the shell scripts, of the install, and of what a call loads: real processes."""
