"""pflx.export."""
