"""The return-path tier: what packets do on a cluster whose guests move between the nodes."""
