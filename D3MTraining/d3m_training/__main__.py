"""`python -m d3m_training`."""

from d3m_training.cli import main

if __name__ == "__main__":
    main()
