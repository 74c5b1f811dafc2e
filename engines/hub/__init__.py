"""Bundles on a hub of models: fetched, known again in its cache, and published. Knows files, and nothing of bundles."""
