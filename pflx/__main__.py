"""`python -m pflx` is the `pflx` command."""

from __future__ import annotations

from pflx.cli import main

if __name__ == "__main__":
    main()
