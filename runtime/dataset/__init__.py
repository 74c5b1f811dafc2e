"""Many clips at once: cropped, reacted to, collected."""
