"""What `pflx bench-latency` measures with, and the report that it writes."""
