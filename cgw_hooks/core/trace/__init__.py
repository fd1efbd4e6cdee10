"""From the events of nft's trace to the story of one packet and its answer. No I/O."""
