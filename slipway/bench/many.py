"""An environment of its own with many models, as far as it is Argo CD's: nothing runs in them.

Project, ApplicationSet, namespace and release files are those of a real environment with other
names, on a branch of their own, whose chart differs in one thing: its pods go to simulated nodes.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import yaml

from slipway import release, up
from slipway.bench import kwok
from slipway.bench.history import BOT, Stream, model_name
from slipway.endpoints import Cluster, ClusterError, part
from slipway.errors import SlipwayError
from slipway.forge import Forge, NotFound
from slipway.publish import fetch, git
from slipway.release import Release

NAME = "bench-scale"
MODEL, ENV = up.FIRST_MODEL, up.FIRST_ENVIRONMENT
SELECTOR = f"slipway/environment={NAME}"
ARGO = "/apis/argoproj.io/v1alpha1/namespaces/argocd"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
NAMESPACE = f"/api/v1/namespaces/{NAME}"
VALUES = "environments/{}/values.yaml"
DEPLOYMENT = "bentos/serving/templates/deployment.yaml"
# Of the pod's template, where the chart has nothing to say about nodes.
ANCHOR = "      serviceAccountName: model\n"
PATIENCE_S, AT_ONCE = 300.0, 8


class Many:
    """`models` release files in an environment that exists for them only."""

    def __init__(self, platform: Cluster, forge: Forge, folder: Path, models: int) -> None:
        """`folder`: an empty one, for a copy of the repository."""
        self._platform, self._forge, self._place = platform, forge, folder / "repository.git"
        self.models = models
        # One node more than they fill, for the second pod of one that changes.
        self.nodes = -(-models // kwok.PODS_EACH) + 1

    def make(self, log: Path) -> None:
        """Makes all but the ApplicationSet; `log` is kwok's."""
        self._namespace()
        kwok.add(self._platform, self.nodes, log)
        project = self._live(f"{ARGO}/appprojects/{ENV}")
        self._create(f"{ARGO}/appprojects", "AppProject", {"spec": renamed(project["spec"])})
        path = str(release.path(ENV, MODEL))
        self._released = release.parse(self._forge.read(path), path)
        git("init", "--quiet", "--bare", str(self._place))
        fetch(self._forge.remote, self._place, "+refs/heads/main:refs/heads/main")
        files = {DEPLOYMENT: placed(self._forge.read(DEPLOYMENT))}
        with suppress(NotFound):  # the real one may differ in nothing
            files |= {VALUES.format(NAME): self._forge.read(VALUES.format(ENV))}
        for number in range(self.models):
            files |= self._file(model_name(number + 1))
        self._tip = git("rev-parse", "refs/heads/main", cwd=self._place)
        self._push(files, f"Bench: {self.models} models")

    def begin(self) -> None:
        """Makes the ApplicationSet."""
        live = self._live(f"{ARGO}/applicationsets/{ENV}")
        # As a webhook does: Argo CD looks for the branch that is new, not in what it knows.
        fresh = {"annotations": {"argocd.argoproj.io/application-set-refresh": "true"}}
        rest = {"spec": models_of(live["spec"]), "metadata": fresh}
        self._create(f"{ARGO}/applicationsets", "ApplicationSet", rest)

    def change(self, number: int, version: int) -> str:
        """Pushes another version of one model; the commit."""
        model = model_name(number)
        return self._push(self._file(model, version), f"Bench: {model} {version}")

    def application(self, number: int) -> dict[str, Any]:
        """The Application of one model."""
        name = f"{NAME}-{release.service(model_name(number))}"
        return self._live(f"{ARGO}/applications/{name}")

    def states(self) -> list[tuple[str, str]]:
        """Sync and health of each Application; "" for what it does not know yet."""
        # A table of these alone: a thousand Applications whole are megabytes.
        table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        asked = {"labelSelector": SELECTOR, "includeObject": "None", "resourceVersion": "0"}
        path = f"{ARGO}/applications"
        answer = self._platform.send("GET", path, params=asked, headers=table)
        body: dict[str, Any] = answer.raise_for_status().json()
        names = [column["name"] for column in body["columnDefinitions"]]
        sync, health = names.index("Sync Status"), names.index("Health Status")
        return [
            (row["cells"][sync] or "", row["cells"][health] or "") for row in body["rows"] or ()
        ]

    def clear(self, say: Callable[[str], None]) -> None:
        """Removes all of it and what a bench that was killed has left, one after the other.

        What cannot be removed keeps nothing else from being so.
        """
        with ExitStack() as last_first:
            last_first.callback(self._forge.delete_branch, NAME)
            last_first.callback(self._platform.delete, f"{ARGO}/appprojects/{NAME}")
            last_first.callback(kwok.remove, self._platform)
            last_first.callback(self._without_namespace, say)
            last_first.callback(self._without_applications, say)

    def _live(self, path: str) -> dict[str, Any]:
        found = self._platform.find(path)
        if found is None:
            raise SlipwayError(f"the cluster has no {path}", fix="run `make up`")
        return found

    def _create(self, path: str, kind: str, rest: dict[str, Any], name: str = NAME) -> None:
        _, root, group, version, *_ = path.split("/")
        api = f"{group}/{version}" if root == "apis" else group
        meta = {"name": name, **rest.pop("metadata", {})}
        self._platform.create(path, {"apiVersion": api, "kind": kind, "metadata": meta, **rest})

    def _namespace(self) -> None:
        """With the levels of the real one, its service account and what Argo CD may do there."""
        labels = self._live(f"/api/v1/namespaces/{ENV}")["metadata"]["labels"]
        own = {k: v for k, v in labels.items() if k.startswith("pod-security.kubernetes.io/")}
        self._create("/api/v1/namespaces", "Namespace", {"metadata": {"labels": own}})
        account = {"automountServiceAccountToken": False}
        self._create(f"{NAMESPACE}/serviceaccounts", "ServiceAccount", account, "model")
        for kind, keys in {"Role": ["rules"], "RoleBinding": ["roleRef", "subjects"]}.items():
            kinds = f"{kind.lower()}s"
            for item in self._platform.items(f"{RBAC}/{ENV}/{kinds}"):
                copied = {key: item[key] for key in keys}
                self._create(f"{RBAC}/{NAME}/{kinds}", kind, copied, item["metadata"]["name"])

    def _file(self, model: str, version: int = 0) -> dict[str, bytes]:
        content = released(self._released, model, version)
        return {str(release.path(NAME, model)): release.dumps(content).encode()}

    def _push(self, files: dict[str, bytes], message: str) -> str:
        stream = Stream()
        stream.commit(NAME, message, int(time.time()), files, [self._tip], BOT)
        self._tip = stream.into(self._place, NAME)
        remote = self._forge.remote
        refs = f"+refs/heads/{NAME}:refs/heads/{NAME}"
        git("push", "--quiet", remote.url, refs, remote=remote, cwd=self._place)
        return self._tip

    def _without_applications(self, say: Callable[[str], None]) -> None:
        """Without the finalizers by which Argo CD would take down one after the other."""
        self._platform.delete(f"{ARGO}/applicationsets/{NAME}")
        path, deadline = f"{ARGO}/applications", time.monotonic() + PATIENCE_S
        while found := self._platform.items(path, labelSelector=SELECTOR):
            say(f"removing {len(found)} Applications")
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._remove, (f"{path}/{i['metadata']['name']}" for i in found)))
            _pause(deadline, "Applications")

    def _remove(self, application: str) -> None:
        try:
            self._platform.patch(application, {"metadata": {"finalizers": None}})
        except ClusterError as error:
            if error.status != 404:
                raise
        self._platform.delete(application)

    def _without_namespace(self, say: Callable[[str], None]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while found := self._platform.find(NAMESPACE):
            if not part(found, "metadata", "deletionTimestamp"):
                self._platform.delete(NAMESPACE)
            say(f"removing namespace {NAME}")
            _pause(deadline, "its namespace")


def models_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of the real ApplicationSet for this environment: its models, which admission knows
    nothing of, as nothing runs here."""
    generators = [g for g in spec["generators"] if "git" in g]
    return renamed({**spec, "generators": generators})


def renamed(spec: Any) -> Any:
    """A spec of the real environment, as it is for this one and its branch."""
    if isinstance(spec, dict):
        mapping = cast("dict[str, Any]", spec)
        return {key: renamed(value) for key, value in mapping.items()}
    if isinstance(spec, list):
        return [renamed(item) for item in cast("list[Any]", spec)]
    if not isinstance(spec, str):
        return spec
    if spec in (ENV, "main"):
        return NAME
    text = spec.replace(f"environments/{ENV}/", f"environments/{NAME}/")
    return re.sub(rf"^{ENV}-", f"{NAME}-", text)


def placed(template: bytes) -> bytes:
    """The chart's Deployment, its pods on simulated nodes.

    Raises:
        SlipwayError: the template is not as it was when this was written.
    """
    before, anchor, after = template.decode().partition(ANCHOR)
    if not anchor or ANCHOR in after:
        raise SlipwayError(f"{DEPLOYMENT} has no place for nodes", fix="see slipway/bench/many.py")
    added = yaml.safe_dump(kwok.PLACEMENT, sort_keys=False)
    indented = "".join(f"      {line}\n" for line in added.splitlines())
    return f"{before}{anchor}{indented}{after}".encode()


def released(real: Release, model: str, version: int = 0) -> Release:
    """The release of another model; given a `version`, with a bento of that version's own."""
    document: dict[str, Any] = real.model_dump() | {"model": model}
    if version:
        digits = hashlib.sha256(f"{model} {version}".encode()).hexdigest()
        bento = {"digest": f"sha256:{digits}", "uri": f"s3://bentos/sha256/{digits}"}
        document |= {"version": version, "bento": document["bento"] | bento}
    return Release.model_validate(document)


def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise SlipwayError(f"{what} of {NAME} are not gone", fix="slipway bench scale, once more")
    time.sleep(2)
