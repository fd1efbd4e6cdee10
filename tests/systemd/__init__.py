"""Units under a real systemd, beside the firewalls whose start or reload takes our rules."""
