"""One file per sampling style of the generator."""
