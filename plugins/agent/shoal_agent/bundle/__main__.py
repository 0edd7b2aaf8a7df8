"""``python -m shoal_agent.bundle DIR``: builds the bundle, and says how large it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shoal_agent.bundle.build import build
from shoal_agent.bundle.single import single_file


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shoal_agent.bundle", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; it must be empty or absent")
    parser.add_argument(
        "--single-file", type=Path, metavar="FILE", help="write it as one file that unpacks itself, too"
    )
    given = parser.parse_args()
    folder = given.folder
    try:
        digest = build(folder)
        if given.single_file is not None:
            given.single_file.write_bytes(single_file(folder))
            given.single_file.chmod(0o755)
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"the bundle could not be built: {error}\n")
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    sys.stdout.write(f"{folder}: {size / 1e6:.1f} MB, {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
