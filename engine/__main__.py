"""`python -m engine` is `matchd`."""

from engine.cli import main

if __name__ == "__main__":
    main()
