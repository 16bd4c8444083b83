"""`python -m upstream_guard.cli`, for where the console script is not on PATH."""

from upstream_guard.cli import main

if __name__ == "__main__":
    main()
