"""The tests' API server, asked as its administrator or as somebody else."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.apiserver import TOKEN

ARGO = "/apis/argoproj.io/v1alpha1/namespaces/pipelines"


class Api:
    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
        verify = ssl.create_default_context(cafile=cluster["certificate-authority"])
        verify.check_hostname = False
        self.client = httpx.Client(
            base_url=cluster["server"],
            verify=verify,
            headers={"Authorization": f"Bearer {TOKEN}"},
            trust_env=False,
        )

    def token(self, namespace: str, account: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return str(self.client.post(path, json=body).raise_for_status().json()["status"]["token"])

    def items(self, kind: str) -> list[dict[str, Any]]:
        return self.client.get(f"{ARGO}/{kind}").raise_for_status().json()["items"]

    def change(self, path: str, change: dict[str, Any], user: str = "") -> tuple[int, str]:
        """Status and message of a change."""
        headers = {"Content-Type": "application/merge-patch+json"}
        headers |= {"Impersonate-User": user} if user else {}
        answer = self.client.patch(path, json=change, headers=headers)
        return answer.status_code, str(answer.json().get("message", ""))

    def create(
        self, path: str, body: dict[str, Any], user: str = "", group: str = ""
    ) -> tuple[int, str]:
        """Status and message of a creation that is only tried."""
        headers = {"Impersonate-User": user} if user else {}
        headers |= {"Impersonate-Group": group} if group else {}
        answer = self.client.post(path, json=body, headers=headers, params={"dryRun": "All"})
        return answer.status_code, str(answer.json().get("message", ""))
