"""What is watched: metric names, pushing and exposing them, dashboards and alerts as code, and the batch report.

`docs/monitoring.md` says what each family means; `docs/runbooks/` holds one page for each alert.
"""
