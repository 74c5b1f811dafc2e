"""What a graph computes where it stores numbers in FP16, and whether they fit."""
