"""Where the API server is and who we are to it: kubeconfig files, their content, or a pod's own."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(Exception):
    """The kubeconfig is missing or wrong; the message says where."""


def load(kubeconfig: str = "") -> dict[str, Any]:
    """The kubeconfig named by `kubeconfig` (a path or the content), else KUBECONFIG, else the usual
    file, as one document; the files that KUBECONFIG lists are merged, first come first kept."""
    if kubeconfig and ("\n" in kubeconfig or kubeconfig.lstrip().startswith("{")):
        return _parse(kubeconfig, "kubeconfig (content)")
    listed = [kubeconfig] if kubeconfig else os.environ.get("KUBECONFIG", "").split(os.pathsep)
    files = [Path(name).expanduser() for name in listed if name]
    if kubeconfig and not files[0].is_file():
        raise KubeconfigError(f"kubeconfig: no such file: {files[0]}")
    if not files:
        files = [Path("~/.kube/config").expanduser()]
    merged: dict[str, Any] = {}
    for file in files:
        if not file.is_file():
            continue
        document = _parse(file.read_text(), str(file))
        for section in ("clusters", "users", "contexts"):
            merged.setdefault(section, []).extend(document.get(section) or [])
        for entry in merged["clusters"] + merged["users"]:
            _absolute_paths(entry.get("cluster") or entry.get("user") or {}, file.parent)
        merged.setdefault("current-context", document.get("current-context") or "")
    if not merged and (_POD / "token").is_file():
        return _of_pod()
    if not merged:
        raise KubeconfigError(
            f"no kubeconfig: {', '.join(map(str, files))} not found and KUBECONFIG names none"
        )
    return merged


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{where}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise KubeconfigError(f"{where}: neither the path of a file nor a kubeconfig's content")
    return document  # pyright: ignore[reportUnknownVariableType]


def _absolute_paths(entry: dict[str, Any], folder: Path) -> None:
    for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if entry.get(key):
            entry[key] = str(folder / entry[key])


def _of_pod() -> dict[str, Any]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{host}:{port}", "certificate-authority": str(_POD / "ca.crt")}
    namespace = (_POD / "namespace").read_text().strip()
    return {
        "clusters": [{"name": "pod", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": str(_POD / "token")}}],
        "contexts": [
            {"name": "pod", "context": {"cluster": "pod", "user": "pod", "namespace": namespace}}
        ],
        "current-context": "pod",
    }


def _named(document: dict[str, Any], section: str, key: str, name: str) -> dict[str, Any]:
    for entry in document.get(section) or []:
        if entry.get("name") == name:
            return entry.get(key) or {}
    raise KubeconfigError(f"kubeconfig: {section}: nothing is named {name!r}")


@dataclass
class Access:
    """One context of a kubeconfig, resolved."""

    cluster: dict[str, Any]
    user: dict[str, Any]
    namespace: str

    @staticmethod
    def of(document: dict[str, Any], context: str = "", cluster: str = "") -> Access:
        """The named context (default: the current one), its cluster replaced where one is named.

        Raises `KubeconfigError` where a name is not in the document.
        """
        name = context or document.get("current-context") or ""
        chosen = _named(document, "contexts", "context", name) if name else {}
        return Access(
            cluster=_named(document, "clusters", "cluster", cluster or chosen.get("cluster", "")),
            user=_named(document, "users", "user", chosen["user"]) if chosen.get("user") else {},
            namespace=chosen.get("namespace") or "",
        )

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._token = ""
        self._expires = datetime.max.replace(tzinfo=UTC)

    def tls(self) -> ssl.SSLContext:
        """A client context with the cluster's authority and the user's certificate, if any."""
        authority = _content(self.cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if self.cluster.get("insecure-skip-tls-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        certificate = _content(self.user, "client-certificate")
        key = _content(self.user, "client-key")
        if not certificate and self.user.get("exec"):
            status = self._run(self.user["exec"])
            certificate = status.get("clientCertificateData", "").encode()
            key = status.get("clientKeyData", "").encode()
        if certificate:
            # ssl reads certificates from files alone; these are 0600 and gone at once.
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(certificate + b"\n" + key)
                pair.flush()
                context.load_cert_chain(pair.name)
        return context

    def headers(self) -> dict[str, str]:
        """The headers that say who we are. May run the user's credential plugin."""
        user = self.user
        if user.get("username"):
            pair = f"{user['username']}:{user.get('password', '')}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        if user.get("tokenFile"):  # read each time: kubelet renews it
            return {"Authorization": f"Bearer {Path(user['tokenFile']).read_text().strip()}"}
        if user.get("token"):
            return {"Authorization": f"Bearer {user['token']}"}
        if user.get("exec"):
            with self._lock:
                if not self._token or datetime.now(UTC) > self._expires - timedelta(minutes=1):
                    self._run(user["exec"])
                return {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return {}

    def _run(self, plugin: dict[str, Any]) -> dict[str, Any]:
        """Runs a credential plugin (client.authentication.k8s.io); its answer's status."""
        version = plugin.get("apiVersion", "client.authentication.k8s.io/v1")
        info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
        extra = {e["name"]: e["value"] for e in plugin.get("env") or []}
        command = [plugin["command"], *(plugin.get("args") or [])]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(info)},
                capture_output=True,
                check=True,
                timeout=60,
            )
            status = json.loads(done.stdout)["status"]
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise KubeconfigError(f"credential plugin {command[0]!r} failed: {said}") from None
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            raise KubeconfigError(f"credential plugin {command[0]!r}: {error}") from None
        self._token = status.get("token", "")
        if status.get("expirationTimestamp"):
            self._expires = datetime.fromisoformat(status["expirationTimestamp"])
        return status


def _content(entry: dict[str, Any], key: str) -> bytes:
    if entry.get(f"{key}-data"):
        return base64.b64decode(entry[f"{key}-data"])
    return Path(entry[key]).read_bytes() if entry.get(key) else b""
