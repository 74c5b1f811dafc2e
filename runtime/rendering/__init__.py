"""Coefficients → pictures of a portrait."""
