"""`python -m coda` is `coda`."""

from coda.cli import main

if __name__ == "__main__":
    main()
