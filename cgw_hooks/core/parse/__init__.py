"""Text -> values. Untrusted text is checked here and nowhere else."""
