"""What all verbs share: how the command line is read, and what is printed."""
