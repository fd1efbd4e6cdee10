"""Values -> nft text and kernel settings."""
