"""MLflow over its REST API, for steps that run often: its own client takes seconds to import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Self, cast

import httpx

from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError

# A tag of training runs: the digest of the code that they ran.
CODE = "slipway.code_digest"


class RegistryError(SlipwayError):
    """MLflow refused."""


class Registry:
    """What MLflow knows of a model: its aliases, and which code has been trained."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        """`url` of the tracking server."""
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/2.0/mlflow/",
            timeout=httpx.Timeout(30, connect=5),
            transport=transport,
            trust_env=False,
        )

    @classmethod
    def from_environment(cls) -> Self:
        """At MLFLOW_TRACKING_URI; `BadInput` if unset."""
        url = os.environ.get("MLFLOW_TRACKING_URI")
        if not url:
            raise BadInput("not set", field="MLFLOW_TRACKING_URI", fix="set it to the server's URL")
        return cls(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any] | None:
        """MLflow's answer; None when there is no such thing.

        Raises:
            ConnectionError: no answer, or one that may be another the next time.
        """
        try:
            response = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise ConnectionError(f"MLflow: {error or type(error).__name__}") from error
        if response.status_code == 404:
            return None
        if response.status_code == 429 or response.is_server_error:
            raise ConnectionError(f"MLflow: {path}: {response.status_code}")
        if response.is_error:
            raise RegistryError(f"MLflow: {path}: {response.status_code} {response.text[:300]}")
        return cast("dict[str, Any]", response.json())

    def aliases(self) -> dict[str, dict[str, int]]:
        """Every registered model's aliases: model to alias to version."""
        return {
            str(model["name"]): {a["alias"]: int(a["version"]) for a in model.get("aliases", [])}
            for model in self._models()
        }

    def _models(self) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            params = {"max_results": 1000, **({"page_token": token} if token else {})}
            page = self._ask("GET", "registered-models/search", params=params) or {}
            yield from page.get("registered_models", [])
            token = str(page.get("next_page_token") or "")
            if not token:
                return

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Has `alias` name `version` of a model."""
        body = {"name": model, "alias": alias, "version": str(version)}
        if self._ask("POST", "registered-models/alias", json=body) is None:
            raise RegistryError(
                f"MLflow has no version {version} of {model}",
                fix="a release file names a version that is registered: was MLflow's data lost?",
            )

    def delete_alias(self, model: str, alias: str) -> None:
        """Removes an alias; one that is not there is no error."""
        self._ask("DELETE", "registered-models/alias", json={"name": model, "alias": alias})

    def runs(self, model: str, code: Digest) -> list[str]:
        """The runs that have trained the model on this code to their end."""
        found = self._ask("GET", "experiments/get-by-name", params={"experiment_name": model})
        if found is None:
            return []
        search = {
            "experiment_ids": [found["experiment"]["experiment_id"]],
            "filter": f"tags.`{CODE}` = '{code}' and attributes.status = 'FINISHED'",
            "max_results": 1000,
        }
        answer = self._ask("POST", "runs/search", json=search) or {}
        return [str(run["info"]["run_id"]) for run in answer.get("runs", [])]
