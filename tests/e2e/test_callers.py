"""How an application calls a model, and who may: from pods' own networks, with their own DNS."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway import cluster, paths, release
from slipway.bench.gpus import RESTRICTED
from slipway.endpoints import Cluster, part, parts
from slipway.forge import Gitea

from .conftest import ENV, MODEL, until
from .test_network import connect

PATH = str(release.path(ENV, MODEL))
# Namespace and name of each, which is its label `app` too. In pipelines steps run.
CALLERS = [("shop", "web"), ("shop", "job"), ("office", "web"), ("pipelines", "caller")]


@pytest.fixture(scope="module")
def callers() -> Iterator[dict[str, Path]]:
    """namespace/name of pods that do nothing -> the network that each is in."""
    platform = Cluster.connect()
    image = platform.config("pipelines", "platform")["SERVING_IMAGE"]
    own = [n for n in dict.fromkeys(n for n, _ in CALLERS) if n != "pipelines"]
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in own
    ]
    objects += [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "caller",
                        "image": image,
                        "command": ["python", "-c", "import time; time.sleep(3600)"],
                        "resources": {
                            "requests": {"cpu": "1m", "memory": "16Mi"},
                            "limits": {"memory": "64Mi"},
                        },
                        "securityContext": RESTRICTED,
                    }
                ],
            },
        }
        for namespace, name in CALLERS
    ]
    try:
        cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))
        for namespace, name in CALLERS:
            ready = ("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=90s")
            cluster.kubectl("-n", namespace, *ready)
        places = {ip: place for place, ip in cluster.network_namespaces().items()}
        yield {
            f"{namespace}/{name}": places[
                part(
                    platform.find(f"/api/v1/namespaces/{namespace}/pods/{name}"), "status", "podIP"
                )
            ]
            for namespace, name in CALLERS
        }
    finally:
        cluster.kubectl("-n", "pipelines", "delete", "pod", "caller", "--ignore-not-found")
        cluster.kubectl("delete", "namespace", *own, "--ignore-not-found")


def test_an_application_calls_as_documented(callers: dict[str, Path], tmp_path: Path) -> None:
    """Its very command, as from a pod of a namespace that the platform does not know."""
    if not shutil.which("curl"):
        pytest.skip("this machine has no curl")
    document = (paths.REPOSITORY / "docs/serve.md").read_text()
    [command] = re.findall(r"^curl .*\.svc/predict$", document, re.M)
    names = tmp_path / "resolv.conf"
    names.write_text(cluster.kubectl("-n", "shop", "exec", "job", "--", "cat", "/etc/resolv.conf"))
    as_a_pod = (
        f"mount --bind {names} /etc/resolv.conf && exec {command} --include --no-progress-meter"
    )
    done = subprocess.run(
        ["nsenter", f"--net={callers['shop/job']}", "unshare", "--mount", "sh", "-c", as_a_pod],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    head, _, answer = done.stdout.replace("\r", "").partition("\n\n")
    assert 0 < json.loads(answer)["probability_late"] < 1
    said = dict(re.findall(r"^([\w-]+): (.*)$", head, re.M))
    for header in re.findall(r"`(x-slipway-\w+)`", document):
        assert said[header]


def test_only_whom_the_release_names_may_call(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str], callers: dict[str, Path]
) -> None:
    """And whoever else may, the platform itself still asks: commands, and steps."""

    def reaching() -> set[str]:
        model = {"labelSelector": f"slipway.dev/model={MODEL}"}
        ips = [
            part(pod, "status", "podIP")
            for pod in platform.items(f"/api/v1/namespaces/{ENV}/pods", **model)
            if not pod["metadata"].get("deletionTimestamp")
        ]
        return {name for name, place in callers.items() if connect(place, [f"{ips[0]}:3000"])}

    def ruled() -> Any:
        policy = f"/apis/networking.k8s.io/v1/namespaces/{ENV}/networkpolicies"
        found = platform.find(f"{policy}/{release.service(MODEL)}")
        return [rule.get("from") for rule in parts(found, "spec", "ingress")]

    assert reaching() == set(callers)
    before = forge.read(PATH)
    allow = b"rollout:\n  allowFrom: [{namespace: shop, pods: {app: web}}]\n"
    forge.write("main", {PATH: before.replace(b"rollout:\n", allow)}, "The shop's pages may ask")
    try:
        until(lambda: ruled() not in ([None], []), 60, "the policy did not arrive")
        until(lambda: reaching() == {"shop/web", "pipelines/caller"}, 15, f"{reaching()} reach it")
        assert "answered by sha256:" in slipway("predict", MODEL, "--env", ENV)
    finally:
        forge.write("main", {PATH: before}, "Whoever may ask")
    until(lambda: reaching() == set(callers), 60, "not everybody may ask again")
