"""What was recorded of real clips, and playing it again."""
