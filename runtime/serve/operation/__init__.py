"""For whoever runs a server: its counters, its log, and how it ends."""
