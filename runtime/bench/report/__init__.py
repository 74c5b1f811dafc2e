"""What was measured, as text, JSON and a page; held to limits and earlier reports."""
