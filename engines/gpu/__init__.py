"""One GPU: its memory, streams and arrays, and the engines that run there."""
