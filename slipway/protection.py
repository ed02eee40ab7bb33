"""What protects main: changes come by pull requests that have passed, whoever merges them.

One source for the forge that the platform makes (infra/platform/gitea.py) and for one that is there
(`slipway protect`), in the words of each API. Who pushes to main passes by its gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BRANCH = "main"
# A tag of that name would be what many a reader of "main" gets.
TAG = BRANCH
# Who need not ask for a pull request on GitHub, and what else may be asked of one there.
BYPASS = "bypass_pull_request_allowances"
STRICTER = (
    "required_linear_history",
    "block_creations",
    "required_conversation_resolution",
    "lock_branch",
)


# How pull requests may be merged, in each forge's words for a repository: as one commit on main.
# Rebased or fast-forwarded, each commit of a branch would be one of main's, and a release file that
# nobody has judged, amid them, would count as one that stood there.
GITEA_MERGES: Mapping[str, bool] = {
    # Without it Gitea takes none of the others, and says nothing.
    "has_pull_requests": True,
    "allow_merge_commits": True,
    "allow_rebase": False,
    "allow_rebase_explicit": False,
    "allow_fast_forward_only_merge": False,
}
GITHUB_MERGES: Mapping[str, bool] = {"allow_merge_commit": True, "allow_rebase_merge": False}


def gitea(
    status: str, pushers: Sequence[str] = (), *, present: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A branch protection of Gitea's.

    Args:
        status: context of the commit status without which nobody merges.
        pushers: who may push all the same, but not force; else nobody.
        present: that which is there. Other statuses that it requires stay required.
    """
    required: list[str] = list((present or {}).get("status_check_contexts") or ())
    return {
        "enable_status_check": True,
        "status_check_contexts": required if status in required else [*required, status],
        "block_admin_merge_override": True,
        "dismiss_stale_approvals": True,
        "block_on_rejected_reviews": True,
        "enable_push": bool(pushers),
        "enable_push_whitelist": bool(pushers),
        "push_whitelist_usernames": list(pushers),
        "push_whitelist_deploy_keys": False,
        "enable_force_push": False,
    }


def github(status: str, app: int, *, present: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A branch protection of GitHub's. Who must approve is the gates' to say, so nobody here.

    Args:
        app: number of the only app whose report of `status` counts; -1 for whosoever.
        present: that which is there, as it is told to GitHub. What it asks beyond this stays, as
            telling GitHub of one setting takes back all others.
    """
    has = present or {}
    checks: dict[str, Any] = has.get("required_status_checks") or {}
    reviews: dict[str, Any] = has.get("required_pull_request_reviews") or {}
    required = {check["context"]: check for check in checks.get("checks") or ()}
    required[status] = {"context": status, "app_id": app}
    # To a person's own repository it may not be said that nobody bypasses.
    bypass = {"users": [], "teams": [], "apps": []} if reviews.get(BYPASS) else None
    return {
        "required_status_checks": {
            "strict": bool(checks.get("strict")),
            "checks": list(required.values()),
        },
        "enforce_admins": True,
        "required_pull_request_reviews": {
            "dismiss_stale_reviews": True,
            "require_code_owner_reviews": bool(reviews.get("require_code_owner_reviews")),
            "required_approving_review_count": reviews.get("required_approving_review_count", 0),
            **{key: reviews[key] for key in ("require_last_push_approval",) if reviews.get(key)},
            **({BYPASS: bypass} if bypass else {}),
        },
        "restrictions": has.get("restrictions"),
        "allow_force_pushes": False,
        "allow_deletions": False,
        **{key: has[key] for key in STRICTER if has.get(key)},
    }


# GitHub protects tags by rulesets only.
GITHUB_TAG: dict[str, Any] = {
    "name": "slipway: no tag is called main",
    "target": "tag",
    "enforcement": "active",
    "bypass_actors": [],
    "conditions": {"ref_name": {"include": [f"refs/tags/{TAG}"], "exclude": []}},
    "rules": [{"type": "creation"}, {"type": "update"}],
}


def merges(wanted: Mapping[str, bool], repository: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The same of how may be merged. What a forge does not tell of its repository is told to it."""
    present = {key: repository.get(key, not value) for key, value in wanted.items()}
    return differences(wanted, present)


def differences(wanted: Any, present: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Setting to what it is and what it should be, of all that `wanted` names and is otherwise.

    What a forge adds to what it is told, such as addresses, is nobody's concern.
    """
    if isinstance(wanted, dict):
        found: dict[str, tuple[Any, Any]] = {}
        has: Any = present if isinstance(present, dict) else {}
        for key, value in wanted.items():  # pyright: ignore[reportUnknownVariableType]
            found |= differences(value, has.get(key), f"{path}.{key}" if path else str(key))
        return found
    # What is off, many an answer leaves out.
    same = wanted == present or (present is None and not wanted)
    return {} if same else {path: (present, wanted)}
