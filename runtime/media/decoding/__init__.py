"""What a file holds, and what its pictures are made of: tracks, fields, colours; and what else a file may be."""
