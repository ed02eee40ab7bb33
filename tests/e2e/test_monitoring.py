"""What alerts are of is there: each metric and label, where the platform's monitors look for it."""

from __future__ import annotations

import re

import pytest
import yaml

from infra.platform.monitoring import ALERTS
from slipway import cluster
from slipway.endpoints import Cluster, part

from .conftest import ENV

EXPRESSIONS = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load(ALERTS.read_text())
    for rule in group["rules"]
}
# By the first word of a metric's name: namespace, labels of the pod, scheme and port.
SOURCES = {
    "argocd": ("argocd", "app.kubernetes.io/name=argocd-application-controller", "http", 8082),
    "argo": ("argo", "app=workflow-controller", "https", 9090),
    "bentoml": (ENV, "app.kubernetes.io/component=model", "http", 3000),
}
# What Prometheus adds, and what it calls a metric's own label where it has one of that name.
ADDED = {"namespace", "slipway_dev_model"}


def told(platform: Cluster, source: str) -> str:
    namespace, labels, scheme, port = SOURCES[source]
    pods = f"/api/v1/namespaces/{namespace}/pods"
    [pod, *_] = platform.items(pods, labelSelector=labels)
    name = part(pod, "metadata", "name")
    raw = f"{pods}/{scheme}:{name}:{port}/proxy/metrics"
    return cluster.kubectl("get", "--raw", raw)


@pytest.mark.parametrize("alert", EXPRESSIONS)
def test_what_an_alert_is_of_is_there(platform: Cluster, alert: str) -> None:
    found = re.findall(r"\b((?:argocd|argo|bentoml)_\w+)(?:\{([^}]*)\})?", EXPRESSIONS[alert])
    assert found
    grouped = re.findall(r"by \(([^)]*)\)", EXPRESSIONS[alert])
    for metric, matchers in found:
        lines = [
            line
            for line in told(platform, metric.partition("_")[0]).splitlines()
            if re.match(rf"{metric}[{{ ]", line)
        ]
        assert lines, f"nothing tells {metric}"
        wanted = {*re.findall(r"(\w+)[!=]", matchers)}
        wanted |= {name.strip() for names in grouped for name in names.split(",")} - ADDED
        for name in wanted:
            assert re.search(rf'[{{,]{name.removeprefix("exported_")}="', lines[0]), lines[0]
