"""What the listener without a network does, gesture by gesture, and when."""
