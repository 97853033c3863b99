"""`python -m d3m`."""

from d3m.cli import main

if __name__ == "__main__":
    main()
