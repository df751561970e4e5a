"""Where Chromium is, for whoever drives it: Playwright, Node, or nobody at all."""

import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""None where it is not installed."""
