"""The doctor: hosts that are broken for real, and cures that are typed as printed."""
