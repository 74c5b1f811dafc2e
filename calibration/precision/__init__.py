"""Which nodes bear FP16, and INT8."""
