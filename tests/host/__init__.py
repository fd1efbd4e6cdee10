"""The host tier: whole Debian hosts as they are installed, each inside an emulator."""
