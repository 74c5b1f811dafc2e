"""Fitting a PosNet to recorded motion."""
