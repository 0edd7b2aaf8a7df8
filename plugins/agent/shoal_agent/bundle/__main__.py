"""``python -m shoal_agent.bundle DIR``: builds the bundle, and says how large it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shoal_agent.bundle.build import build


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shoal_agent.bundle", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; it must be empty or absent")
    folder = parser.parse_args().folder
    try:
        digest = build(folder)
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"the bundle could not be built: {error}\n")
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    sys.stdout.write(f"{folder}: {size / 1e6:.1f} MB, {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
