"""Whole updates by the Pulumi engine, through the installed plugin."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import psutil
import pytest

from provider.harness import Objects, Stack

pytestmark = pytest.mark.apiserver


def test_life_of_a_stack(stack: Stack, objects: Objects) -> None:
    program = """
        import os
        place = {{"namespace": os.environ["NAMESPACE"]}}
        forced = {{"annotations": {{"pulumi.com/patchForce": "true"}}}}
        ours = {{**place, **forced, "labels": {{"ours": "1"}}}}
        config = k8s.core.v1.ConfigMap("config", metadata=ours, data={{"a": "1"}})
        secret = k8s.core.v1.Secret(
            "secret",
            metadata={{**place, "name": "secret", "labels": {{"version": "{version}"}}}},
            string_data={{"password": pulumi.Output.secret("correct-horse-battery")}},
        )
        mixed = k8s.core.v1.ConfigMap(
            "mixed",
            metadata={{**place, "name": "mixed"}},
            data={{"a": pulumi.Output.secret("staple-of-a-horse"), "b": config.metadata.uid}},
        )
        role = k8s.rbac.v1.ClusterRole("role", rules=[])
        pulumi.export("name", config.metadata.name)
        pulumi.export("data", secret.data)
    """
    stack.program(program.format(version="1"))
    said = stack.pulumi("up", "--yes")  # with its preview
    assert "5 created" in said
    state = stack.state()
    for secret in ("correct-horse", "Y29ycmVjdC1ob3JzZS", "staple-of"):
        assert secret not in said
        assert secret not in state
    name = json.loads(stack.pulumi("stack", "output", "--json"))["name"]
    assert name.startswith("config-")
    made = objects.get("v1", "ConfigMap", name)
    assert made["data"] == {"a": "1"}

    drift = {"metadata": {"labels": {"ours": "2", "theirs": "3"}}}
    objects.patch("v1", "ConfigMap", name, drift)
    objects.delete("v1", "ConfigMap", "mixed")
    said = stack.up("--refresh")
    assert "1 created" in said
    assert "1 updated" in said
    live = objects.get("v1", "ConfigMap", name)["metadata"]
    assert live["labels"] == {"ours": "1", "theirs": "3"}
    assert live["uid"] == made["metadata"]["uid"]
    assert objects.get("v1", "ConfigMap", "mixed")
    assert "5 unchanged" in stack.up()

    # A refresh by itself only takes over what it finds; the next update puts that back.
    objects.patch("v1", "ConfigMap", name, {"metadata": {"labels": {"ours": "4"}}})
    objects.delete("v1", "ConfigMap", "mixed")
    said = stack.pulumi("refresh", "--yes", "--skip-preview")
    assert "1 updated" in said
    assert "1 deleted" in said
    assert objects.get("v1", "ConfigMap", name)["metadata"]["labels"]["ours"] == "4"
    said = stack.up()
    assert "1 updated" in said
    assert "1 created" in said
    assert objects.get("v1", "ConfigMap", name)["metadata"]["labels"]["ours"] == "1"

    stack.program(program.format(version="2"))
    assert "1 updated" in stack.up("--diff", "--refresh")
    assert objects.get("v1", "Secret", "secret")["metadata"]["labels"] == {"version": "2"}
    assert "5 deleted" in stack.pulumi("destroy", "--yes", "--skip-preview")
    assert objects.get("v1", "ConfigMap", name) is None


def test_definition_and_resource_in_one_update(stack: Stack, objects: Objects) -> None:
    stack.program("""
        import os
        for scope, group in (("Namespaced", "inside.example"), ("Cluster", "outside.example")):
            schema = {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
            version = {"name": "v1", "served": True, "storage": True}
            crd = k8s.apiextensions.v1.CustomResourceDefinition(
                f"crd-{scope}",
                metadata={"name": f"things.{group}"},
                spec={
                    "group": group,
                    "scope": scope,
                    "names": {"kind": "Thing", "plural": "things"},
                    "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
                },
            )
            k8s.apiextensions.CustomResource(
                f"thing-{scope}",
                api_version=f"{group}/v1",
                kind="Thing",
                metadata={"name": "thing"}
                | ({"namespace": os.environ["NAMESPACE"]} if scope == "Namespaced" else {}),
                spec={"anything": {"deep": [1, 2.5, True]}},
                opts=pulumi.ResourceOptions(depends_on=[crd]),
            )
    """)
    assert "5 created" in stack.pulumi("up", "--yes")
    inside = objects.get("inside.example/v1", "Thing", "thing")
    assert inside["spec"] == {"anything": {"deep": [1, 2.5, True]}}
    assert "namespace" not in objects.get("outside.example/v1", "Thing", "thing")["metadata"]
    assert "5 unchanged" in stack.up("--refresh")
    assert "5 deleted" in stack.pulumi("destroy", "--yes", "--skip-preview")


def test_immutable_field_replaces(stack: Stack, objects: Objects) -> None:
    program = """
        import os
        labels = {{"app": "{label}"}}
        for name in ("fixed", None):
            k8s.apps.v1.Deployment(
                name or "free",
                metadata={{
                    "namespace": os.environ["NAMESPACE"],
                    "annotations": {{"pulumi.com/skipAwait": "true"}},
                    **({{"name": name}} if name else {{}}),
                }},
                spec={{
                    "selector": {{"match_labels": labels}},
                    "template": {{
                        "metadata": {{"labels": labels}},
                        "spec": {{"containers": [{{"name": "m", "image": "x"}}]}},
                    }},
                }},
            )
    """
    stack.program(program.format(label="one"))
    stack.up()
    uid = objects.get("apps/v1", "Deployment", "fixed")["metadata"]["uid"]
    stack.program(program.format(label="two"))
    said = stack.pulumi("up", "--yes", "--diff")
    assert "2 replaced" in said
    live = objects.get("apps/v1", "Deployment", "fixed")
    assert live["metadata"]["uid"] != uid
    assert live["spec"]["selector"]["matchLabels"] == {"app": "two"}
    assert len(objects.cluster.list("apps/v1", "Deployment", objects.namespace)) == 2


def test_import(stack: Stack, objects: Objects) -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}, "data": {"a": "1"}}
    uid = objects.create(obj)["metadata"]["uid"]
    stack.program("")
    place = f"{objects.namespace}/old"
    command = ["import", "kubernetes:core/v1:ConfigMap", "old", place, "--yes", "--protect=false"]
    stack.pulumi(*command, "--generate-code=false", "--skip-preview")
    stack.program(f"""
        metadata = {{"name": "old", "namespace": "{objects.namespace}"}}
        k8s.core.v1.ConfigMap("old", metadata=metadata, data={{"a": "1"}})
    """)
    assert "2 unchanged" in stack.up()
    assert objects.get("v1", "ConfigMap", "old")["metadata"]["uid"] == uid


POD = """
        import os
        k8s.core.v1.Pod(
            "pod",
            metadata={"name": "pod", "namespace": os.environ["NAMESPACE"]},
            spec={"containers": [{"name": "main", "image": "x"}]},
            opts=pulumi.ResourceOptions(
                custom_timeouts=pulumi.CustomTimeouts(create="%s", update="1s")
            ),
        )
"""
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def test_what_was_not_ready_is_taken_up_again(stack: Stack, objects: Objects) -> None:
    stack.program(POD % "1s")
    said = stack.up(fails=True)
    assert "timed out after 1 s: phase Pending" in said
    uid = objects.get("v1", "Pod", "pod")["metadata"]["uid"]
    assert "phase Pending" in stack.up(fails=True)
    objects.status("v1", "Pod", "pod", READY)
    assert "1 updated" in stack.up()
    assert objects.get("v1", "Pod", "pod")["metadata"]["uid"] == uid
    assert "unchanged" in stack.up()


def test_killed_halfway(stack: Stack, objects: Objects) -> None:
    stack.program(POD % "60s")
    process = stack.start_up()
    deadline = time.monotonic() + 120
    while not objects.get("v1", "Pod", "pod"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    plugins = _plugins_of(process.pid)
    assert plugins
    stack.kill(process)
    # By it what is ours is told from what was there, see `pulumi.take_nothing_over`.
    [begun] = json.loads(stack.state())["deployment"]["pending_operations"]
    assert begun["resource"]["inputs"]["metadata"]["name"] == "pod"
    uid = objects.status("v1", "Pod", "pod", READY)["metadata"]["uid"]
    stack.pulumi("cancel", "--yes")
    assert "created" in stack.up()
    assert objects.get("v1", "Pod", "pod")["metadata"]["uid"] == uid
    assert not [p for p in plugins if _lives(p)]


def _lives(process: int) -> bool:
    """Not so of one that has ended and that process 1, its parent by now, has yet to bury."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


def _plugins_of(engine: int) -> list[int]:
    """Processes of the stand-in under an engine."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == engine and b"standin" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_dynamic_resources(stack: Stack, objects: Objects) -> None:
    stack.program("""
        from pulumi.dynamic import CreateResult, Resource, ResourceProvider

        class Provider(ResourceProvider):
            def create(self, props):
                return CreateResult("id", {"made": props["wanted"] + "!"})

        class Thing(Resource):
            made: pulumi.Output[str]

            def __init__(self, name, wanted):
                super().__init__(Provider(), name, {"wanted": wanted, "made": None})

        pulumi.export("made", Thing("thing", "this").made)
    """)
    stack.up()
    assert json.loads(stack.pulumi("stack", "output", "--json")) == {"made": "this!"}
