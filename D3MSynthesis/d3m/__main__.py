"""`python -m d3m`."""

from d3m.commands.app import main

if __name__ == "__main__":
    main()
