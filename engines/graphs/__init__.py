"""The Engine protocol, and what serves it on the CPU."""
