"""The Xen tier: real guests on a real Xen, in one emulated machine."""
