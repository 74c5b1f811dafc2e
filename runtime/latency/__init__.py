"""Figures of what happened when, all of them computed from ledgers."""
