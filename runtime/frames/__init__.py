"""The words that every room of the runtime speaks: plain types and constants, importing no other room."""
