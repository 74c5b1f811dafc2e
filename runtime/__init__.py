"""pflx.runtime."""
