"""Pictures and sound, in and out: clips, cameras, windows, files."""
