"""The Debian packages, the wheel and the release."""
