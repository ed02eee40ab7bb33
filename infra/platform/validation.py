"""Admission that depends on the stack; what does not is in policies/admission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.admissionregistration.v1 import (
    MatchConditionArgs,
    MatchResourcesArgs,
    NamedRuleWithOperationsArgs,
    ValidatingAdmissionPolicyBindingSpecArgs,
    ValidatingAdmissionPolicySpecArgs,
    ValidationArgs,
    VariableArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.platform import pods
from infra.platform.component import Component
from infra.platform.network import NAMESPACE


def validating(
    component: Component,
    name: str,
    namespace: pulumi.Input[str],
    rule: NamedRuleWithOperationsArgs,
    validations: Sequence[tuple[pulumi.Input[str], str]],
    *,
    variables: Mapping[str, str] | None = None,
    conditions: Mapping[str, str] | None = None,
) -> list[pulumi.Resource]:
    """A policy of a component's, and its binding.

    Args:
        rule: what is judged, in this one namespace.
        validations: what must be so (CEL), and what is said where it is not.
        conditions: where one of them does not hold, nothing is judged.
    """
    metadata = ObjectMetaArgs(name=name, labels=pods.labels(name))
    policy = k8s.admissionregistration.v1.ValidatingAdmissionPolicy(
        name,
        metadata=metadata,
        spec=ValidatingAdmissionPolicySpecArgs(
            failure_policy="Fail",
            match_constraints=MatchResourcesArgs(
                namespace_selector=LabelSelectorArgs(match_labels={NAMESPACE: namespace}),
                resource_rules=[rule],
            ),
            match_conditions=[
                MatchConditionArgs(name=n, expression=e) for n, e in (conditions or {}).items()
            ]
            or None,
            variables=[VariableArgs(name=n, expression=e) for n, e in (variables or {}).items()]
            or None,
            validations=[
                ValidationArgs(expression=expression, message=message)
                for expression, message in validations
            ],
        ),
        opts=component.child(),
    )
    binding = k8s.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
        name,
        metadata=metadata,
        spec=ValidatingAdmissionPolicyBindingSpecArgs(
            policy_name=name, validation_actions=["Deny"]
        ),
        opts=component.child(policy),
    )
    return [policy, binding]
