"""`python -m cli`, the same as the command `landscape`."""

from cli import main

if __name__ == "__main__":
    main()
