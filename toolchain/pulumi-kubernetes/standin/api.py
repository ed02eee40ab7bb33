"""The Kubernetes API over one shared pool of connections; safe to use from many threads."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from .kubeconfig import Access, KubeconfigError

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"  # JSON is YAML

# Answers that say "not now": https://kubernetes.io/docs/reference/using-api/#rate-limiting
_TRANSIENT = frozenset({429, 502, 503, 504})
_ATTEMPTS = 6


class ApiError(Exception):
    """The API server refused. `status` is the HTTP status; `body` its Status object, if any."""

    def __init__(self, status: int, body: Object, text: str = "") -> None:
        self.status, self.body = status, body
        self.reason = str(body.get("reason") or "")
        message = str(body.get("message") or text or f"HTTP status {status}")
        details: Object = body.get("details") or {}
        fields = [
            f"  {cause.get('field')}: {cause.get('message')}"
            for cause in details.get("causes") or []
            if cause.get("field") and f"{cause.get('field')}: {cause.get('message')}" not in message
        ]
        super().__init__("\n".join([message, *fields]))

    @property
    def owners(self) -> bool:
        """Whether it refused because other field managers own what was to be changed."""
        causes = (self.body.get("details") or {}).get("causes") or []
        return self.status == 409 and any(c.get("reason") == "FieldManagerConflict" for c in causes)

    @property
    def immutable(self) -> bool:
        """Whether it refused to change a field that cannot be changed."""
        return self.status == 422 and bool(
            re.search(
                r"immutable|may not be changed|updates to .* are forbidden",
                str(self),
                re.IGNORECASE,
            )
        )


class Unreachable(Exception):
    """No API server answered."""


class NoKind(Exception):
    """The server knows no such kind (its CRD is not there, or not there yet)."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(
            f'the API server knows no kind "{kind}" in "{api_version}";'
            " is its CustomResourceDefinition there, and does this resource depend on it?"
        )


@dataclass(frozen=True)
class Kind:
    """What discovery says of a kind: its plural name in paths, and its scope."""

    plural: str
    namespaced: bool


class Cluster:
    """A cluster's API."""

    def __init__(self, access: Access) -> None:
        server = str(access.cluster.get("server") or "").rstrip("/")
        if not server:
            raise KubeconfigError("kubeconfig: the cluster names no server")
        self.server = server
        self._access = access
        options: dict[str, Any] = {
            "maxsize": 64,
            "retries": False,
            "timeout": urllib3.Timeout(connect=10, read=120),
            "headers": {"User-Agent": "pulumi-kubernetes", "Accept": "application/json"},
        }
        if server.startswith("https:"):
            options["ssl_context"] = access.tls()
            if access.cluster.get("tls-server-name"):
                options["server_hostname"] = access.cluster["tls-server-name"]
            if access.cluster.get("insecure-skip-tls-verify"):
                options["assert_hostname"] = False
        proxy = access.cluster.get("proxy-url")
        self._pool = (
            urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        )
        self._reached = False
        self._kinds: dict[str, dict[str, Kind]] = {}
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        warn: Callable[[str], None] | None = None,
    ) -> Any:
        """The decoded answer (text where it is not JSON). Every call here may be repeated safely.

        Raises `ApiError`, or `Unreachable` (also for a server that never answered before).
        """
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            headers = {**self._pool.headers, **self._access.headers()}
            if data is not None:
                headers["Content-Type"] = content_type
            try:
                answer = self._pool.request(method, url, body=data, headers=headers)
            except urllib3.exceptions.HTTPError as error:
                # A server that restarts comes back in seconds; one that never was there does not.
                if last or not self._reached:
                    raise Unreachable(f"{self.server}: {_root_cause(error)}") from None
                time.sleep(2**attempt / 4)
                continue
            self._reached = True
            if answer.status in _TRANSIENT and not last:
                time.sleep(float(answer.headers.get("Retry-After") or 2**attempt / 4))
                continue
            for warning in answer.headers.getlist("Warning") if warn else ():
                if warn and (text := re.match(r'299 \S+ "(.*)"', warning)):
                    warn(text[1].replace('\\"', '"'))
            return _decoded(answer)
        raise AssertionError("unreachable")

    def kind(self, api_version: str, kind: str) -> Kind:
        """What discovery says. Raises `NoKind`.

        A kind that was not there is asked for again, at most once a second: its CRD may be new.
        """
        with self._lock:
            known = self._kinds.get(api_version, {})
            if kind not in known and time.monotonic() - self._asked.get(api_version, -9) > 1:
                known = self._kinds[api_version] = self._discover(api_version)
                self._asked[api_version] = time.monotonic()
        if kind not in known:
            raise NoKind(api_version, kind)
        return known[kind]

    def _discover(self, api_version: str) -> dict[str, Kind]:
        root = "/apis" if "/" in api_version else "/api"
        try:
            resources = self.request("GET", f"{root}/{api_version}")["resources"]
        except ApiError as error:
            if error.status == 404:
                return {}
            raise
        return {
            r["kind"]: Kind(r["name"], r["namespaced"]) for r in resources if "/" not in r["name"]
        }

    def path(self, api_version: str, kind: str, namespace: str, name: str = "") -> str:
        """The path of an object, or of all of its kind."""
        found = self.kind(api_version, kind)
        parts = ["/apis" if "/" in api_version else "/api", api_version]
        if found.namespaced and namespace:
            parts += ["namespaces", quote(namespace)]
        return "/".join([*parts, found.plural, *([quote(name, safe="")] if name else [])])

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None where it is not there."""
        try:
            return self.request("GET", self.path(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str = "", **query: str) -> list[Object]:
        """All objects of a kind; `query`: labelSelector, fieldSelector."""
        answer = self.request("GET", self.path(api_version, kind, namespace), query)
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]


def _decoded(answer: urllib3.BaseHTTPResponse) -> Any:
    text = answer.data.decode(errors="replace")
    try:
        body = json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text
    except ValueError:
        body = text
    if answer.status >= 400:
        raise ApiError(answer.status, body if isinstance(body, dict) else {}, str(body))  # pyright: ignore
    return body


def _root_cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error)
