"""Run the command line as ``python -m hanat``."""

from hanat.cli import main

if __name__ == "__main__":
    main()
