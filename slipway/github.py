"""Where a GitHub and its API are."""

from __future__ import annotations

from urllib.parse import urlsplit

SERVER, API = "https://github.com", "https://api.github.com"
# As whom Actions comment and report.
ACTIONS = "github-actions[bot]"
# What the addresses of APIs are like, and no Gitea's is: a regular expression.
APIS = "^https://api[.](github[.]com|[^/]+[.]ghe[.]com)$|/api/v3$"


def api_of(server: str) -> str:
    """The API of the GitHub at an address: github.com's, ghe.com's, or an Enterprise's own."""
    root = server.rstrip("/")
    host = urlsplit(root).hostname or ""
    if root == SERVER:
        return API
    return f"https://api.{host}" if host.endswith(".ghe.com") else f"{root}/api/v3"
