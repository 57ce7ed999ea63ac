"""`python -m edgemoe`: the command line."""

from __future__ import annotations

from edgemoe.cli import main

if __name__ == "__main__":
    main()
