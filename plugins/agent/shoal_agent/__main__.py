"""``python -m shoal_agent``."""

from __future__ import annotations

import sys

sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio imports it if it can: 4.5 MB that nothing here needs
import asyncio  # noqa: E402, F401

del sys.modules["ssl"]

from shoal_agent.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
