"""Who may touch what on this system: ``ACCESS`` is its way (FR-CFG-004, NFR-SEC-007)."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from agent.platform.win32 import load_win32
    from agent.platform.windows_access import WindowsAccess

    ACCESS = WindowsAccess(load_win32())
else:
    from agent.platform.posix_access import PosixAccess

    ACCESS = PosixAccess()
