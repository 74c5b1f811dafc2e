"""Bundles on the disk, and what their engines may run on."""
