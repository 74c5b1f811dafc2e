"""`pflx bench-latency`: running a listener and measuring it."""
