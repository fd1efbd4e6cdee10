"""A Debian host as it is installed, with its own kernel, systemd and AppArmor, inside QEMU."""
