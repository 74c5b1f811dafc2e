"""Persons: weights of a generator that were made for one listener, and the files that hold them."""

from __future__ import annotations

from pflx.runtime.persons.person import Person, PersonError, Whom, read_person, write_person

__all__ = ["Person", "PersonError", "Whom", "read_person", "write_person"]
