"""The command behind `scripts/fuzz`."""

from __future__ import annotations

import argparse
import sys

from fuzz.frame import Count, builders, fuzz, rounds, table


def main() -> int:
    """Fuzz, print the table; exit code 1 where anything but a `DeixisError` came out."""
    known = builders()
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Damaged files for every reader.")
    parser.add_argument("--seed", type=int, default=0, help="other seeds damage otherwise")
    parser.add_argument("--minutes", type=float, help="stop after this time (default 5, where there is no --count)")
    parser.add_argument("--count", type=int, help="inputs of each reader")
    parser.add_argument("--reader", action="append", choices=sorted(known), help="one reader; may be given again")
    parser.add_argument("--only", type=int, help="one input, by its number, to see a fault again")
    options = parser.parse_args()
    names = options.reader or list(known)
    minutes = 5.0 if options.minutes is None and options.count is None else options.minutes
    counts = {name: Count() for name in names}
    chosen = rounds(names, None if minutes is None else 60 * minutes, options.count)
    if options.only is not None:
        chosen = iter([(name, range(options.only, options.only + 1)) for name in names])
    for name, numbers in chosen:
        fuzz(name, known[name], options.seed, numbers, counts[name])
    print(table(counts))
    return 1 if any(count.faults for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
