"""pflx.engines."""
