"""The pages about drift: static files that need no other server, made from the table of batches (decision 0032)."""

from coda.monitoring.site.build import build_site

__all__ = ["build_site"]
