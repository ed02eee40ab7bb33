"""The release file, `environments/<env>/models/<model>.yaml`: the unit of promotion.

It pins everything that decides what a model answers. The same file is the serving chart's values,
what gates read and what a reviewer reads.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from slipway.errors import BadInput, did_you_mean, from_validation

ENVIRONMENTS = ("dev", "staging", "prod")
# A registry of images, or a path in one.
REGISTRY_NAME = r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*"

_HEADER = "# Written by slipway. What runs changes by a pull request that changes this file.\n"


def _refuse(problem: str) -> PydanticCustomError:
    # The text is data, not a template: braces in it would be looked up as fields.
    return PydanticCustomError("slipway", "{problem}", {"problem": problem})


def _pattern(pattern: str, describe: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "description": describe})


def _digest(value: str) -> str:
    prefix, colon, digits = value.partition(":")
    if not colon or prefix != "sha256":
        raise _refuse(
            "not a digest: write sha256: and 64 hex digits (a tag can move, a digest cannot)"
        )
    _hex(digits, 64, "digest")
    return value


def _hex(digits: str, length: int, what: str) -> None:
    if len(digits) < length:
        raise _refuse(f"short {what}: {len(digits)} of {length} hex digits; give all of them")
    if len(digits) > length:
        raise _refuse(f"{what} too long: {len(digits)} hex digits, expected {length}")
    if not re.fullmatch(r"[0-9a-f]+", digits):
        raise _refuse(f"a {what} has only the characters 0-9 and a-f")


def _commit(value: str) -> str:
    _hex(value, 40, "commit")
    return value


def _run(value: str) -> str:
    _hex(value, 32, "run")
    return value


def _image(value: str) -> str:
    name, at, digest = value.partition("@")
    if not at:
        raise _refuse("no digest: write NAME@sha256:… (a tag can move, a digest cannot)")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*", name):
        raise _refuse("not an image name: write REGISTRY/NAME@sha256:…")
    if ":" in name.rpartition("/")[2]:
        raise _refuse(
            "a tag beside the digest says two things: write NAME@sha256:… without the tag"
        )
    return f"{name}@{_digest(digest)}"


_MODEL_NAME = "^[a-z][a-z0-9]*(_[a-z0-9]+)*$"


def _model_name(value: str) -> str:
    if not 2 <= len(value) <= 40 or not re.fullmatch(_MODEL_NAME, value):
        raise _refuse(
            "a model's name is 2 to 40 characters of a-z, 0-9 and _, begins with a letter, ends "
            "with a letter or digit, and has no __ (it names a Python package and a Service)"
        )
    return value


Digest = Annotated[
    str,
    AfterValidator(_digest),
    _pattern("^sha256:[0-9a-f]{64}$", "sha256: and 64 hex digits"),
]
Commit = Annotated[
    str, AfterValidator(_commit), _pattern("^[0-9a-f]{40}$", "git commit, 40 hex digits")
]
Run = Annotated[str, AfterValidator(_run), _pattern("^[0-9a-f]{32}$", "MLflow run, 32 hex digits")]
Image = Annotated[
    str,
    AfterValidator(_image),
    _pattern(
        r"^[a-z0-9.-]+(:[0-9]+/[a-z0-9._-]+)?(/[a-z0-9._-]+)*@sha256:[0-9a-f]{64}$",
        "image reference by digest, without a tag",
    ),
]
ModelName = Annotated[
    str,
    AfterValidator(_model_name),
    WithJsonSchema({"type": "string", "pattern": _MODEL_NAME, "minLength": 2, "maxLength": 40}),
]
Cpu = Annotated[str, Field(pattern=r"^([0-9]+m|[0-9]+(\.[0-9]+)?)$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi)$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
# Kubernetes' own rules of labels, and those of a route's name and paths.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, Field(pattern=rf"^([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL}$")]
LabelValue = Annotated[str, Field(pattern=rf"^({_LABEL})?$")]
_HOST_PART = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME = rf"^{_HOST_PART}(\.{_HOST_PART})+$"
UrlPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$", max_length=256)]


class Strict(BaseModel):
    """Unknown keys are refused, and no value is coerced to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Bento(Strict):
    """The bento object in the store; `size` in bytes."""

    digest: Digest
    uri: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]+/sha256/[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0)]

    @model_validator(mode="after")
    def _uri_names_the_digest(self) -> Self:
        if not self.uri.endswith("/" + self.digest.replace(":", "/")):
            raise _refuse(
                "uri and digest name different bentos: the uri ends with sha256/<the digest's hex>"
            )
        return self


class Runtime(Strict):
    """The serving image: dependencies only, so it changes only when a lock file does."""

    image: Image


class Data(Strict):
    """The dataset manifest the model was trained on."""

    digest: Digest


class Code(Strict):
    """The commit that trained the model."""

    commit: Commit


class MLflow(Strict):
    """Where training was logged."""

    run: Run


class Signature(Strict):
    """The model's MLflow signature: what callers send, and what they get."""

    digest: Digest


class Evidence(Strict):
    """The signed evidence (a DSSE envelope), and those of its numbers that are read first."""

    digest: Digest
    summary: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Finite] = {}


class Resources(Strict):
    """What one replica asks for, as Kubernetes quantities. Memory is its limit too."""

    cpu: Cpu = "250m"
    memory: Memory = "512Mi"


class Gpu(Strict):
    """GPUs of one replica, all on one node; of a pool's nodes, where it says which."""

    count: Annotated[int, Field(ge=1, le=16)]
    pool: Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None


class Autoscale(Strict):
    """As many replicas, up to `maximum`, as it takes to keep each at what is said here.

    Either `cpu`, percent of what a replica asks for that it uses, or with GPUs `waiting`, requests.
    """

    maximum: Annotated[int, Field(ge=2, le=100)]
    cpu: Annotated[int, Field(ge=10, le=400)] | None = None
    waiting: Annotated[int, Field(ge=1, le=1000)] | None = None


class Callers(Strict):
    """Pods of a namespace that may call a model: those with these labels, or all."""

    namespace: Name
    pods: Annotated[dict[LabelKey, LabelValue], Field(min_length=1)] | None = None


class Gateway(Strict):
    """A Gateway that is there; of its listeners the one that is named, or all."""

    name: Name
    namespace: Name
    listener: Name | None = None


class Route(Strict):
    """Where a model is found from outside the cluster: at a Gateway, by a name and some paths."""

    gateway: Gateway
    hostname: Annotated[str, Field(pattern=_HOSTNAME, max_length=253)]
    paths: Annotated[list[UrlPath], Field(min_length=1, max_length=16)] = ["/predict"]


class Rollout(Strict):
    """How the release runs in its environment: the one part that environments differ in.

    `replicas` is the least there are where `autoscale` may make more. `allowFrom` says who may
    call the model beside the platform itself: without it every pod of the cluster may.
    """

    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    resources: Resources = Resources()
    gpu: Gpu | None = None
    autoscale: Autoscale | None = None
    allowFrom: Annotated[list[Callers], Field(max_length=64)] | None = None
    route: Route | None = None

    @model_validator(mode="after")
    def _scales_by_what_there_is(self) -> Self:
        scale = self.autoscale
        if scale is None:
            return self
        if scale.maximum <= self.replicas:
            raise _refuse("autoscale.maximum is not above replicas: raise it, or drop autoscale")
        if self.gpu and (scale.cpu or not scale.waiting):
            raise _refuse(
                "autoscale: what a CPU does tells nothing of a GPU: say waiting alone, the "
                "requests that may wait for each replica"
            )
        if not self.gpu and (scale.waiting or not scale.cpu):
            raise _refuse(
                "autoscale: only an engine on GPUs has requests that wait: say cpu alone, the "
                "percent of resources.cpu that a replica may use; or gpu too"
            )
        return self

    @model_validator(mode="after")
    def _gateway_may_call(self) -> Self:
        if self.route and self.allowFrom == []:
            raise _refuse(
                "route leads to a model that allowFrom lets nobody call: name the namespace of "
                "the gateway's pods there"
            )
        return self

    @property
    def most(self) -> int:
        """Replicas that there may be."""
        return self.autoscale.maximum if self.autoscale else self.replicas


class Approvals(Strict):
    """Who must approve, by the name of a policy in policies/promotion/approvals.yaml."""

    policy: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")] = "none"


class Release(Strict):
    """One model in one environment. `version` is MLflow's registered model version."""

    model: ModelName
    version: Annotated[int, Field(ge=1)]
    bento: Bento
    runtime: Runtime
    data: Data
    code: Code
    mlflow: MLflow
    signature: Signature
    evidence: Evidence
    rollout: Rollout = Rollout()
    approvals: Approvals = Approvals()

    @property
    def service(self) -> str:
        """Name of the model's Service, Deployment and so on: the model with dashes."""
        return service(self.model)

    @property
    def pins(self) -> dict[str, str]:
        """The pins as the serving chart annotates the Deployment and its pods with them."""
        pins = {
            "model": self.model,
            "version": str(self.version),
            "bento": self.bento.digest,
            "runtime": self.runtime.image,
            "data": self.data.digest,
            "commit": self.code.commit,
            "run": self.mlflow.run,
            "signature": self.signature.digest,
            "evidence": self.evidence.digest,
        }
        return {f"slipway.dev/{name}": value for name, value in pins.items()}


def service(model: str) -> str:
    """`flight_delay` to `flight-delay`: Kubernetes allows no underscores."""
    return model.replace("_", "-")


def check_model_name(name: str) -> str:
    """Returns `name`; `BadInput` when no model may be called so."""
    try:
        return _model_name(name)
    except PydanticCustomError as error:
        raise BadInput(f"{name!r}: {error}", field="model") from None


def check_environment(name: str) -> str:
    """Returns `name`; `BadInput` when there is no such environment."""
    if name not in ENVIRONMENTS:
        raise BadInput(f"unknown environment {name!r}", fix=did_you_mean(name, ENVIRONMENTS))
    return name


def before(env: str) -> str | None:
    """Where a model has to have been before it may enter an environment; None for the first."""
    at = ENVIRONMENTS.index(env)
    return ENVIRONMENTS[at - 1] if at else None


def path(env: str, model: str) -> PurePosixPath:
    """The release file's path, relative to the repository's root."""
    return PurePosixPath("environments", env, "models", f"{model}.yaml")


def branch(model: str, version: int, env: str = ENVIRONMENTS[0], *, mark: str = "") -> str:
    """The branch that proposes a version of a model to an environment.

    Args:
        mark: 8 hex digits that tell it from other proposals of the same version.
    """
    to = "" if env == ENVIRONMENTS[0] else f"{env}-"
    return f"release/{to}{model}-{version}" + (f"-{mark}" if mark else "")


def proposes(branch: str) -> tuple[str, str, int] | None:
    """Environment, model and version that a branch proposes; None when it is no such branch."""
    others = "|".join(ENVIRONMENTS[1:])
    found = re.fullmatch(
        rf"release/(?:({others})-)?([a-z][a-z0-9_]*)-([0-9]+)(?:-[0-9a-f]{{8}})?", branch
    )
    if not found:
        return None
    env, model, version = found.groups()
    return env or ENVIRONMENTS[0], model, int(version)


def rolls_back(branch: str) -> tuple[str, str, int] | None:
    """Environment, model and version that a rollback's branch goes back to; None for another."""
    kind, _, rest = branch.partition("/")
    env, _, proposed = rest.partition("-")
    if kind != "rollback" or env not in ENVIRONMENTS:
        return None
    found = proposes(f"release/{proposed}")
    return (env, found[1], found[2]) if found else None


# The parser in C, which most builds of PyYAML have, reads a thousand releases in a blink.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeys(_Loader):
    """YAML lets a later key win in silence, which would hide one of two pins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value
            if name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {name!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(name)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


class _Dumper(yaml.SafeDumper):
    pass


def _string(_: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # Helm's YAML reader takes a commit such as 12e34… for a float, which PyYAML would leave bare.
    style = '"' if re.fullmatch(r"[0-9]+(e[0-9]+)?", value) else None
    return yaml.ScalarNode("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _string)


def parse_yaml(text: str | bytes, file: Path | PurePosixPath | str) -> dict[str, Any]:
    """A YAML mapping with unique keys, else `BadInput` with file and line."""
    try:
        document = yaml.load(text, _UniqueKeys)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise BadInput(f"not YAML: {error.problem or error}", file=where) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"not YAML: {error}", file=str(file)) from None
    if not isinstance(document, dict):
        raise BadInput("empty or not a mapping of keys", file=str(file))
    return cast("dict[str, Any]", document)


def parse(text: str | bytes, file: Path | PurePosixPath | str) -> Release:
    """The release in `text`; `BadInput` names every wrong field. The file is <model>.yaml."""
    document = parse_yaml(text, file)
    try:
        release = Release.model_validate(document)
    except ValidationError as error:
        raise from_validation(error, Release, str(file)) from None
    stem = PurePosixPath(file).stem
    if release.model != stem:
        raise BadInput(
            f"{release.model!r} in a file called {stem}.yaml",
            file=str(file),
            field="model",
            fix=f"rename the file to {release.model}.yaml, or release {stem}",
        )
    return release


def load(file: Path) -> Release:
    """Reads a release file. `BadInput` when it is not there or wrong."""
    try:
        return parse(file.read_bytes(), file)
    except FileNotFoundError:
        raise BadInput("no such release file", file=file) from None


def dumps(release: Release) -> str:
    """The release as YAML, keys in the model's order: equal releases give equal bytes."""
    document = release.model_dump(mode="json", exclude_none=True)
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return _HEADER + body
