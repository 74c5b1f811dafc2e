"""Numbers from real data: feeds recorded from a bundle, and what is decided from them, judged on rendered frames."""
