"""`python -m d3m_benchmark`."""

from d3m_benchmark.cli import main

if __name__ == "__main__":
    main()
