"""`python -m harness` is `ftbench`."""

from harness.cli import main

if __name__ == "__main__":
    main()
