"""pflx.cli."""
