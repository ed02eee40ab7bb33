"""What Argo CD syncs: each environment's models and what admission knows of them, and workflows.

A push reaches all of it by Argo CD's webhook. That knows Applications only, and an ApplicationSet's
own webhook does not understand Gitea. So each environment's ApplicationSet makes `releases-ENV`,
too, which lists the release files: the webhook has it look at git again when one of them comes or
goes, and a controller that sees what it owns being looked at looks itself.

No sync waves: nothing in a model's Application waits for anything else there. Of the Deployment the
order is in its pods: an init container fetches the bento and verifies it by its digest, and ready
is a pod that has just made a real prediction with it. So Synced and Healthy together say that the
model answers with the bento that git names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.platform import secrets
from infra.platform.component import Component
from infra.platform.managed import SERVING_KINDS, WORKFLOW_KINDS

API = "argoproj.io/v1alpha1"
CLUSTER = "https://kubernetes.default.svc"
CHART = "bentos/serving"
RELEASES = "policies/admission/releases"
WORKFLOWS = "workflows"
# A model's name within an ApplicationSet's template, with dashes.
MODEL = '{{ trimSuffix ".yaml" .path.filename | replace "_" "-" }}'
# A push that touches none of these paths renders nothing anew.
PATHS = "argocd.argoproj.io/manifest-generate-paths"
# How often a forge of the platform's own is looked at for files that no webhook has told of.
LOOK_SECONDS = 10
FINALIZER = "resources-finalizer.argocd.argoproj.io/foreground"


@dataclass(frozen=True)
class ApplicationsArgs:
    namespace: pulumi.Input[str]
    """Argo CD's."""
    repository_url: pulumi.Input[str]
    login: Mapping[str, pulumi.Input[str]]
    """As whom Argo CD reads it, in the words of its Secret for a repository."""
    environments: Mapping[str, pulumi.Input[str]]
    """Environment to the namespace of its models."""
    pipelines: pulumi.Input[str]
    """Namespace where workflows run."""
    look_seconds: int
    """How often the ApplicationSets look for files that no webhook has told of."""


class Applications(Component):
    """A project each for the environments and the workflows, which bounds what a commit can do."""

    def __init__(
        self, name: str, args: ApplicationsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Applications", name, opts)
        self._args = args
        self._repository = secrets.keep(
            "argocd-repository",
            ObjectMetaArgs(
                name="repository-slipway",
                namespace=args.namespace,
                labels={"argocd.argoproj.io/secret-type": "repository"},
            ),
            {
                "type": "git",
                "name": "slipway",
                "url": args.repository_url,
                **args.login,
            },
            self.child(),
        )
        for environment, namespace in args.environments.items():
            project = self._project(environment, namespace, SERVING_KINDS)
            self._custom(
                "ApplicationSet",
                environment,
                self._application_set(environment, namespace),
                project,
            )
        project = self._project("pipelines", args.pipelines, WORKFLOW_KINDS)
        self._custom(
            "Application",
            "workflows",
            self._workflows(),
            project,
            finalizers=[FINALIZER],
            annotations={PATHS: f"/{WORKFLOWS}"},
        )
        self.register_outputs({})

    def _custom(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        *after: pulumi.Resource,
        finalizers: list[str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> CustomResource:
        return CustomResource(
            f"{kind.lower()}-{name}",
            api_version=API,
            kind=kind,
            metadata=ObjectMetaArgs(
                name=name,
                namespace=self._args.namespace,
                finalizers=finalizers,
                annotations=annotations,
            ),
            spec=spec,
            opts=self.child(self._repository, *after),
        )

    def _project(
        self, name: str, namespace: pulumi.Input[str], kinds: Mapping[str, list[str]]
    ) -> CustomResource:
        return self._custom(
            "AppProject",
            name,
            {
                "sourceRepos": [self._args.repository_url],
                "destinations": [{"server": CLUSTER, "namespace": namespace}],
                "clusterResourceWhitelist": [],
                "namespaceResourceWhitelist": [
                    {"group": group, "kind": kind} for group, ks in kinds.items() for kind in ks
                ],
            },
        )

    def _application_set(self, environment: str, namespace: pulumi.Input[str]) -> dict[str, Any]:
        values = f"environments/{environment}/values.yaml"
        return {
            "goTemplate": True,
            "goTemplateOptions": ["missingkey=error"],
            "generators": [
                {
                    "git": {
                        "repoURL": self._args.repository_url,
                        "revision": "main",
                        "files": [{"path": f"environments/{environment}/models/*.yaml"}],
                        "requeueAfterSeconds": self._args.look_seconds,
                    }
                },
                {"list": self._releases(environment, namespace)},
            ],
            "syncPolicy": {"applicationsSync": "sync"},
            "template": {
                "metadata": {
                    # The file's name decides: two files never make one application.
                    "name": f"{environment}-{MODEL}",
                    "labels": {"slipway/environment": environment},
                    "annotations": {
                        PATHS: (
                            f"/{CHART};/{values};/{{{{ .path.path }}}}/{{{{ .path.filename }}}}"
                        )
                    },
                },
                "spec": {
                    "project": environment,
                    "source": {
                        "repoURL": self._args.repository_url,
                        "targetRevision": "main",
                        "path": CHART,
                        "helm": {
                            "releaseName": MODEL,
                            "ignoreMissingValueFiles": True,
                            "valueFiles": [
                                "values.yaml",
                                f"/{values}",
                                "/{{ .path.path }}/{{ .path.filename }}",
                            ],
                        },
                    },
                    "destination": {"server": CLUSTER, "namespace": namespace},
                    "syncPolicy": _SYNC_MODEL,
                    "revisionHistoryLimit": 3,
                },
            },
            "templatePatch": SCALED,
        }

    def _releases(self, environment: str, namespace: pulumi.Input[str]) -> dict[str, Any]:
        """ReleaseSet `releases`: what admission lets run there. What is not said here is as in the
        template of the models."""
        # Not <environment>-releases, as the application of a model might be called.
        name = f"releases-{environment}"
        return {
            "elements": [{"environment": environment}],
            "template": {
                "metadata": {
                    "name": name,
                    "annotations": {PATHS: f"/{RELEASES};/environments/{environment}/models"},
                },
                "spec": {
                    "project": environment,
                    "source": {
                        "repoURL": self._args.repository_url,
                        "path": RELEASES,
                        "helm": {
                            "releaseName": name,
                            "valueFiles": ["values.yaml"],
                            "parameters": [{"name": "environment", "value": environment}],
                        },
                    },
                    "destination": {"server": CLUSTER, "namespace": namespace},
                },
            },
        }

    def _workflows(self) -> dict[str, Any]:
        return {
            "project": "pipelines",
            "source": {
                "repoURL": self._args.repository_url,
                "targetRevision": "main",
                "path": WORKFLOWS,
                "directory": {"include": "*.yaml"},
            },
            "destination": {"server": CLUSTER, "namespace": self._args.pipelines},
            "syncPolicy": _SYNC,
            "revisionHistoryLimit": 3,
        }


_SYNC: dict[str, Any] = {
    "automated": {"prune": True, "selfHeal": True},
    # What is as git has it already need not be applied again: a push syncs in half the time.
    "syncOptions": ["ServerSideApply=true", "ApplyOutOfSyncOnly=true"],
    "retry": {"limit": 5, "backoff": {"duration": "2s", "factor": 2, "maxDuration": "1m"}},
}
_SYNC_MODEL = {**_SYNC, "syncOptions": [*_SYNC["syncOptions"], "RespectIgnoreDifferences=true"]}
# Of a model whose replicas follow something, an autoscaler says how many there are once it has
# changed the number. The chart says one all the same: what Argo CD has applied, and applies no
# more, the API server sets to one. Whatever a file holds, it hides no other one's model.
SCALED = """\
{{- $rollout := get . "rollout" }}
{{- if and (kindIs "map" $rollout) (hasKey $rollout "autoscale") }}
spec:
  ignoreDifferences:
    - {group: apps, kind: Deployment, managedFieldsManagers: [kube-controller-manager]}
{{- else }}
{}
{{- end }}
"""
