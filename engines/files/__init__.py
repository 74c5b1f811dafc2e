"""Files and folders that are there whole or not at all, and locks that tell the living from the dead."""
