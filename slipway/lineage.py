"""Lineage: from what answers back to the data, each link checked against its own source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from slipway import attestation, bento, digests, release, serving
from slipway.endpoints import Cluster, part, parts
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Evidence
from slipway.forge import Forge, NotFound
from slipway.release import Release
from slipway.sources import Keys
from slipway.steps import dataset, tracking
from slipway.store import Store, uri


@dataclass(frozen=True)
class Link:
    """One link: `what` it is, its `value`, where it was checked and what was found there."""

    what: str
    value: str
    source: str
    ok: bool
    found: str


class Broken(SlipwayError):
    """A source says something else than the release file."""


class MLflow:
    """MLflow's REST API, as far as lineage needs it: its client takes seconds to import."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/2.0/mlflow/", transport=transport)

    def get(self, path: str, **params: str) -> Any:
        """The answer's JSON; `SlipwayError` when MLflow refuses or does not answer."""
        try:
            response = self._client.get(path, params=params)
        except httpx.TransportError as error:
            raise SlipwayError(f"no answer from MLflow: {error or type(error).__name__}") from error
        if response.is_error:
            said = part(response.json(), "message") if _is_json(response) else response.text[:200]
            kind = SlipwayError if response.is_server_error else Broken
            raise kind(f"MLflow: {said}")
        return response.json()


def mlflow(cluster: Cluster) -> MLflow:
    """The platform's, asked through the API server: nothing else need be open, nor writable."""
    return MLflow("http://mlflow", transport=cluster.through("mlflow", "mlflow:main"))


def _is_json(response: httpx.Response) -> bool:
    return "json" in response.headers.get("content-type", "")


def released(forge: Forge, env: str, model: str) -> Release:
    """The release file on the forge's main.

    Raises:
        BadInput: there is none, or it is wrong.
    """
    path = str(release.path(env, model))
    try:
        return release.parse(forge.read(path), path)
    except NotFound:
        raise BadInput(
            f"{model} is not released to {env}",
            file=path,
            fix=f"slipway train {model} --wait, and merge its pull request",
        ) from None


def trace(
    cluster: Cluster,
    forge: Forge,
    store: Store,
    keys: Keys,
    mlflow: MLflow,
    env: str,
    model: str,
) -> list[Link]:
    """Every link from the pods to the data; a broken one does not hide those after it."""
    pins = released(forge, env, model)
    documents = _Documents(store, keys, pins)
    checks: list[tuple[str, str, str, Callable[[], str]]] = [
        (
            "answers",
            pins.bento.digest,
            f"a request to {pins.service}.{env}",
            lambda: _answers(cluster, env, pins),
        ),
        ("pods", pins.service, f"namespace {env}", lambda: _pods(cluster, env, pins)),
        (
            "release",
            f"version {pins.version}",
            str(release.path(env, model)),
            lambda: f"on main at {forge.commit()[:12]}",
        ),
        ("bento", pins.bento.digest, pins.bento.uri, lambda: _bento(store, pins)),
        (
            "evidence",
            pins.evidence.digest,
            uri("evidence", pins.evidence.digest),
            lambda: _evidence(documents.evidence(), pins, env),
        ),
        (
            "commit",
            pins.code.commit,
            "the forge",
            lambda: f"has bentos/{model} with code {documents.code(forge)[:19]}",
        ),
        (
            "run",
            pins.mlflow.run,
            "MLflow",
            lambda: _run(mlflow, pins, documents.evidence(), documents.code(forge)),
        ),
        (
            "model",
            f"{model} {pins.version}",
            "MLflow",
            lambda: _version(mlflow, pins, documents.evidence()),
        ),
        (
            "data",
            pins.data.digest,
            uri("data", pins.data.digest),
            lambda: _data(store, pins),
        ),
    ]
    if store.comes_after:  # MLflow knows of them on the stack that trained them
        checks = [check for check in checks if check[2] != "MLflow"]
    return [_link(*check) for check in checks]


def _link(what: str, value: str, source: str, check: Callable[[], str]) -> Link:
    try:
        return Link(what, value, source, True, check())
    except SlipwayError as error:
        return Link(what, value, source, False, str(error))


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Broken(f"{what} is {found}, the release file says {expected}")


class _Documents:
    """What several links are checked against, fetched once."""

    def __init__(self, store: Store, keys: Keys, pins: Release) -> None:
        self._store, self._keys, self._pins = store, keys, pins
        self._evidence: Evidence | None = None
        self._code: str | None = None

    def evidence(self) -> Evidence:
        if self._evidence is None:
            digest = self._pins.evidence.digest
            self._evidence = attestation.fetch(self._store, digest, self._keys)
        return self._evidence

    def code(self, forge: Forge) -> str:
        """The digest of the model's code at the release's commit."""
        if self._code is None:
            self._code = code_at(forge, self._pins.model, self._pins.code.commit)
        return self._code


def code_at(forge: Forge, model: str, commit: str) -> str:
    """What `slipway.bento.Folder.code` gives for the folder as it is at `commit`."""
    folder = f"bentos/{model}"
    lock = bento.LOCK.relative_to(bento.BENTOS.parent).as_posix()
    names = [p for p in forge.files(folder, commit) if p.endswith(".py")]
    contents = {
        path.removeprefix(f"{folder}/"): forge.read(path, commit)
        for path in [*names, f"{folder}/model.yaml", lock]
    }
    return digests.of_files(contents)


def _answers(cluster: Cluster, env: str, pins: Release) -> str:
    found = serving.answering(cluster, env, pins.model)
    if found is None:
        trouble = serving.trouble(cluster, env, pins.model)
        raise Broken(f"nothing answers{': ' if trouble else ''}{trouble}")
    _same("the bento that answers", found, pins.bento.digest)
    return "answers as this bento"


def _pods(cluster: Cluster, env: str, pins: Release) -> str:
    selector = f"app.kubernetes.io/name={pins.service},app.kubernetes.io/component=model"
    pods = [
        pod
        for pod in cluster.items(f"/api/v1/namespaces/{env}/pods", labelSelector=selector)
        if not part(pod, "metadata", "deletionTimestamp")
    ]
    if not pods:
        raise Broken(f"no pods of {pins.service} in {env}")
    for pod in pods:
        name = pod["metadata"]["name"]
        annotations = part(pod, "metadata", "annotations") or {}
        for key, expected in pins.pins.items():
            _same(f"{key} of pod {name}", annotations.get(key), expected)
        containers = {c["name"]: c for c in parts(pod, "spec", "containers")}
        for container in containers.values():
            _same(f"the image of pod {name}", container["image"], pins.runtime.image)
        # The others do not predict.
        model = parts(containers.get("model"), "env")
        variable = "SLIPWAY_BENTO_DIGEST"
        found = {item["name"]: item.get("value") for item in model}.get(variable)
        _same(f"{variable} of pod {name}", found, pins.bento.digest)
    return ", ".join(str(pod["metadata"]["name"]) for pod in pods)


def _bento(store: Store, pins: Release) -> str:
    size = len(store.get("bentos", pins.bento.digest))
    _same("the object's size", size, pins.bento.size)
    return f"{size:,} bytes of that digest"


def _evidence(document: Evidence, pins: Release, env: str) -> str:
    attestation.check_about(document, pins, env)
    found = document.evaluation
    _same("the evidence's model", found.model, pins.model)
    _same("the evidence's commit", found.code, pins.code.commit)
    _same("the evidence's data", found.data.digest, pins.data.digest)
    _same("the evidence's run", found.run, pins.mlflow.run)
    _same("the evidence's summary", document.summary(), pins.evidence.summary)
    numbers = ", ".join(f"{name} {value:g}" for name, value in pins.evidence.summary.items())
    return f"signed, about this bento in {env}: {numbers}"


def _tags(item: Any, *path: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in parts(item, *path)}


def _run(mlflow: MLflow, pins: Release, document: Evidence, code: str) -> str:
    run = part(mlflow.get("runs/get", run_id=pins.mlflow.run), "run")
    tags = _tags(run, "data", "tags")
    _same("the run's data", tags.get("slipway.data_digest"), pins.data.digest)
    _same("the run's model", tags.get(tracking.MODEL), document.evaluation.model_digest)
    _same("the run's code", tags.get("slipway.code_digest"), code)
    _same("the run's status", part(run, "info", "status"), "FINISHED")
    return "trained on this data with this code"


def _version(mlflow: MLflow, pins: Release, document: Evidence) -> str:
    answer = mlflow.get("model-versions/get", name=pins.model, version=str(pins.version))
    tags = _tags(answer, "model_version", "tags")
    _same("the version's model", tags.get(tracking.MODEL), document.evaluation.model_digest)
    return f"model {document.evaluation.model_digest[:19]}"


def _data(store: Store, pins: Release) -> str:
    manifest = dataset.manifest(store, pins.data.digest)
    _same("the dataset's model", manifest.model, pins.model)
    missing = [p.name for p in manifest.partitions if not store.has("data", p.digest)]
    if missing:
        raise Broken(f"partitions are gone: {', '.join(missing)}", fix="run ingest again")
    return f"{manifest.rows:,} rows in {len(manifest.partitions)} partitions"
