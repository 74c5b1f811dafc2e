"""`pflx person`, in a room of its own."""
