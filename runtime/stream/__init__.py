"""One hop after the other, without threads or deadlines: speaker in, listener frames out."""
