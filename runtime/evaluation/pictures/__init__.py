"""Rendered pictures: which videos show a run, how steady they are, how real they look, and what VBench says of them."""
