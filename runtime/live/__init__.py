"""A listener in real time: threads, queues, deadlines, and what is left out when time runs short."""
