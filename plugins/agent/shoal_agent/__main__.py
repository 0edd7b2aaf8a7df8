"""``python -m shoal_agent``."""

from __future__ import annotations

import sys

from shoal_agent.main import main

sys.exit(main(sys.argv[1:]))
