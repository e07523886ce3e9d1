"""Want a core and never give it back: ``python -m chaos.workloads.burner --seconds 5``."""

from __future__ import annotations

import argparse

from chaos.lab.stop import Stop


def main() -> None:
    """Burn until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.burner", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    stop = Stop(parser.parse_args().seconds)
    while not stop:
        pass


if __name__ == "__main__":
    main()
