"""Networks of the chain, one file each."""
