"""Runs the Pulumi engine on this project: its own state, plugins and passphrase, none in git."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml
from pydantic import ValidationError

from slipway import claims, cost, documents, endpoints, images, paths, toolchain
from slipway.claims import Object
from slipway.endpoints import Cluster, part
from slipway.errors import BadInput, SlipwayError, did_you_mean, from_validation

if TYPE_CHECKING:
    from infra.aws.config import Backend
    from infra.config import StackConfig

PROJECT = "slipway"
# What the engine needs on any cluster, and whose manifests the program applies.
TOOLS = ("pulumi", "pulumi-language-python")
MANIFESTS = ("argo-cd", "argo-workflows")
MANIFESTS_ON_AWS = (*MANIFESTS, "external-secrets", "karpenter", "kueue")
# What a stack of simulated GPUs runs, which nothing else does: tools, and images of that name.
SIMULATION = ("karpenter-kwok", "kueue", "kwok")
# Where the language host and the helpers that it starts are found.
LANGUAGE_HOST = paths.REPOSITORY / "toolchain" / "pulumi-language-python"
WITH_CONFIG = {*("up", "update", "preview", "refresh", "destroy", "config", "watch", "import")}
RUNS_PROGRAM = {"up", "update", "preview", "watch"}
UPDATES = RUNS_PROGRAM - {"preview"}
# By these a cluster that has an Argo CD or Argo Workflows is told before there is an engine.
KINDS = ("applications.argoproj.io", "workflows.argoproj.io")
# What Pulumi writes into a stack file besides.
ENCRYPTED_BY = {"secretsprovider", "encryptedkey", "encryptionsalt"}
# What a stack may be, judged before anything of it is made.
POLICIES = paths.REPOSITORY / "policies" / "infrastructure"
JUDGED = {"up", "update", "preview"}
# By this a stack says what it is willing to lose.
GIVE_UP = "SLIPWAY_GIVE_UP"
WITH_STACK = {*WITH_CONFIG, *("about", "cancel", "console", "logs", "stack", "state")}


def is_embedded(stack: str) -> bool:
    """Whether the stack runs on the cluster that Slipway starts: no KUBECONFIG names another.

    Raises:
        BadInput: there is no such stack, or its file is malformed.
    """
    return not _other_cluster() and _cluster_of(stack) == "embedded"


def _other_cluster() -> str | None:
    """The KUBECONFIG that names another cluster than Slipway's."""
    named = os.environ.get("KUBECONFIG")
    ours = not named or Path(named).resolve() == paths.kubeconfig().resolve()
    return None if ours else named


def _cluster_of(stack: str) -> str:
    return _committed(stack)["config"].get("slipway:cluster", "embedded")


def is_elsewhere(stack: str) -> bool:
    """Whether the stack file says that the cluster is there; one that is missing says nothing."""
    return paths.stack_file(stack).exists() and _cluster_of(stack) == "kubeconfig"


def named_images(stack: str) -> dict[str, str]:
    """The images that the stack file names."""
    given = _committed(stack)["config"].get("slipway:images")
    return given if isinstance(given, dict) else {}


def is_on_aws(stack: str) -> bool:
    """Whether Slipway makes the stack's cluster, on AWS."""
    return _cluster_of(stack) == "eks"


def is_simulated(stack: str) -> bool:
    """Whether the stack is GPU nodes beside the platform on the cluster that Slipway starts.

    Raises:
        BadInput: KUBECONFIG names another, whose nodes are somebody's.
    """
    if _cluster_of(stack) != "simulated":
        return False
    if other := _other_cluster():
        what = f"simulated nodes are for the embedded cluster, and KUBECONFIG is {other}"
        raise BadInput(what, field="KUBECONFIG", fix="unset KUBECONFIG")
    return True


def _provide_simulation() -> None:
    """Builds and pushes what simulated GPUs need, and tells what takes time."""

    def tell(name: str, what: str) -> None:
        if what not in ("cached", "pushed before"):
            print(f"{name}: {what}", file=sys.stderr, flush=True)

    toolchain.build(SIMULATION, progress=tell)
    images.build(SIMULATION, progress=tell)
    images.push(names=SIMULATION, progress=tell)


def on_aws() -> list[str]:
    """Names of the stacks that are on AWS."""
    files = paths.stack_file("*").parent.glob("Pulumi.*.yaml")
    return [name for name in sorted(f.name.split(".")[1] for f in files) if is_on_aws(name)]


def names_a_forge(stack: str) -> bool:
    """Whether a stack reads a forge that is there already, and makes none."""
    return bool(_committed(stack)["config"].get("slipway:forge"))


def _committed(stack: str) -> dict[str, Any]:
    """The stack file as it is written. What its values may be is the program's to say."""
    file = paths.stack_file(stack)
    if not file.exists():
        known = [f.name.split(".")[1] for f in file.parent.glob("Pulumi.*.yaml")]
        raise BadInput(f"no such stack: {stack}", file=file, fix=did_you_mean(stack, known))
    return documents.parse_stack(file.read_bytes(), file)


def _home() -> Path:
    return paths.data() / "pulumi"


def _states() -> Path:
    """Where this machine's backend keeps a file for each stack."""
    return _home() / "state" / ".pulumi" / "stacks" / PROJECT


def _shared(stack: str) -> Backend | None:
    """The backend that the stack file names, for all who work on it; None: this machine's.

    Raises:
        BadInput: it cannot be one, or PULUMI_BACKEND_URL names another.
    """
    if not is_on_aws(stack):
        return None
    from infra.aws.config import Backend

    file = paths.told(paths.stack_file(stack))
    given = _committed(stack)["config"].get("slipway:backend")
    try:
        backend = Backend.model_validate(given) if given else None
    except ValidationError as error:
        raise from_validation(error, Backend, file) from None
    named = os.environ.get("PULUMI_BACKEND_URL", "")
    if named and not named.startswith("file:") and named != (backend.url if backend else None):
        raise BadInput(
            f"PULUMI_BACKEND_URL is {named}, the stack's is another: two states of one stack",
            file=file,
            field="slipway:backend",
            fix=f"unset it, or write {{url: {named}, secretsProvider: awskms://…}} for everybody",
        )
    return backend


def environment(stack: str | None = None) -> dict[str, str]:
    """Variables with which `pulumi` itself works on this project.

    Args:
        stack: whose backend is meant; None: this machine's.
    """
    shared = _shared(stack) if stack else None
    home = _home()
    (home / "state").mkdir(parents=True, exist_ok=True)
    paths.secret(home / "passphrase")
    folders = [
        Path(sys.executable).parent,
        LANGUAGE_HOST / "bin",
        toolchain.binary("pulumi").parent,
        toolchain.binary("pulumi-language-python").parent,
    ]
    return {
        "PATH": ":".join([*map(str, dict.fromkeys(folders)), os.environ.get("PATH", "")]),
        "PULUMI_HOME": str(home / "home"),
        "PULUMI_BACKEND_URL": shared.url if shared else f"file://{home}/state",
        "PULUMI_CONFIG_PASSPHRASE_FILE": f"{home}/passphrase",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        # What the program declares wins over a hand edit; repairing drift would be a conflict.
        "PULUMI_K8S_ENABLE_PATCH_FORCE": "true",
        # Resources that wait for pods hold a place each; by default there are four a core.
        "PULUMI_PARALLEL": "32",
        # The engine writes its whole state at each change: memory for a fifth of its time.
        "GOGC": "400",
        "PYTHONPATH": str(paths.REPOSITORY),
        # The SDK has thousands of modules: compiled once and not, where this is set, at each run.
        "PYTHONDONTWRITEBYTECODE": "",
    }


def _stack_file(stack: str) -> Path:
    """The committed stack file plus what its state is encrypted by, outside the checkout.

    Pulumi would write that into the committed file, where every machine would change it. One that
    is there is of another machine's state.
    """
    document = {k: v for k, v in _document(stack).items() if k not in ENCRYPTED_BY}
    file = _home() / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump({**_encryption(stack), **document}, sort_keys=False))
    return file


def _document(stack: str) -> dict[str, Any]:
    """The committed stack file, on the cluster that is meant."""
    document = _committed(stack)
    if _is_given(stack):
        document["config"] |= {"slipway:cluster": "kubeconfig", "slipway:nodePorts": False}
    return document


def config(stack: str) -> StackConfig:
    """A stack's configuration, on the cluster that is meant.

    Raises:
        BadInput: there is no such stack, or the program would refuse it.
    """
    return cost.stack_config(yaml.safe_dump(_document(stack)).encode(), stack)


def _is_given(stack: str) -> bool:
    """Whether the stack runs on a cluster that Slipway did not make."""
    return not (is_embedded(stack) or is_on_aws(stack) or is_simulated(stack))


def _encryption(stack: str) -> dict[str, str]:
    """Salt of this machine's passphrase, or what a key of KMS wraps; makes a stack that is not."""
    shared, state = _shared(stack), _state(stack)
    if state is None:
        provider = ["--secrets-provider", shared.secretsProvider] if shared else []
        _engine(stack, "stack", "init", stack, "--non-interactive", *provider)
        state = _state(stack)
    kept = (state or {})["secrets_providers"]["state"]
    if not shared:
        return {"encryptionsalt": kept["salt"]}
    if "encryptedkey" not in kept:
        raise SlipwayError(
            f"the state of {stack} in {shared.url} is encrypted by a passphrase",
            fix=f"`pulumi stack change-secrets-provider {shared.secretsProvider}`",
        )
    return {"secretsprovider": kept["url"], "encryptedkey": kept["encryptedkey"]}


def _state(stack: str) -> dict[str, Any] | None:
    """What the backend has of a stack; None where it has no such stack."""
    if _shared(stack):
        try:
            said = _engine(stack, "stack", "export", "--stack", stack, "--non-interactive")
        except SlipwayError as error:
            if f"no stack named '{stack}' found" in str(error):
                return None
            raise
        return json.loads(said)["deployment"]
    file = _states() / f"{stack}.json"
    return json.loads(file.read_text())["checkpoint"]["latest"] if file.exists() else None


def _engine(stack: str, *arguments: str) -> str:
    """What the engine says, away from the checkout, whose files it would change."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
        merged = {**os.environ, **environment(stack)}
        command = [str(toolchain.binary("pulumi")), *arguments]
        done = subprocess.run(command, cwd=folder, env=merged, capture_output=True, text=True)
    if done.returncode:
        raise SlipwayError(f"pulumi {' '.join(arguments[:2])} {stack}: {done.stderr.strip()}")
    return done.stdout


def on_other_clusters() -> dict[str, Path]:
    """Stacks whose state is this machine's and tells of something that is not on the embedded
    cluster: the state's file of each."""

    def is_away(file: Path) -> bool:
        resources = part(json.loads(file.read_text()), "checkpoint", "latest", "resources") or []
        made = [r for r in resources if r.get("custom")]
        providers = [r for r in made if r["type"] == "pulumi:providers:kubernetes"]
        clusters = {part(provider, "inputs", "kubeconfig") for provider in providers}
        return bool(made) and clusters != {str(paths.kubeconfig())}

    return {file.stem: file for file in sorted(_states().glob("*.json")) if is_away(file)}


def keeps_state_here(stack: str) -> bool:
    """Whether the stack's state is this machine's, and not in a backend that all share."""
    return _shared(stack) is None


def passphrase_file() -> Path:
    """What secrets in the states on this machine are encrypted by."""
    return _home() / "passphrase"


def exported(stack: str) -> bytes:
    """A stack's state as Pulumi exports it: what is secret in it stays encrypted.

    Raises:
        SlipwayError: an update is changing it.
    """
    if any(alive for _, alive in _locks(stack)):
        raise SlipwayError(f"pulumi is changing stack {stack}", fix="wait until it has ended")
    return _engine(stack, "stack", "export", "--stack", stack, "--non-interactive").encode()


def check_passphrase(stack: str, passphrase: str) -> None:
    """Asks whether a state under this passphrase may become the stack's.

    Raises:
        BadInput: this machine has another one, which other stacks need.
    """
    if not passphrase_file().exists() or passphrase_file().read_text().strip() == passphrase:
        return
    states = {file.stem: json.loads(file.read_text()) for file in _states().glob("*.json")}
    made = {n for n, s in states.items() if part(s, "checkpoint", "latest", "resources")}
    if others := sorted(made - {stack}):
        raise BadInput(
            f"another passphrase than the backup's, and by it the state of {', '.join(others)} is "
            "encrypted",
            file=passphrase_file(),
            fix=f"slipway pulumi destroy --stack {others[0]}",
        )


def adopt(stack: str, state: Path, passphrase: str) -> None:
    """Makes an exported state the stack's, in place of the present one. What of it is on no cluster
    any more, the next `up` finds out and makes anew; what is generated once stays the same."""
    file = _states() / f"{stack}.json"
    if passphrase_file().exists() and passphrase_file().read_text().strip() != passphrase:
        file.unlink(missing_ok=True)  # nobody can read it once the passphrase is another
        passphrase_file().unlink()
    paths.secret(passphrase_file(), passphrase)
    if _state(stack) is None:
        _engine(stack, "stack", "init", stack, "--non-interactive")
    _engine(stack, "stack", "import", "--stack", stack, "--file", str(state), "--non-interactive")
    _interrupted(stack).touch()


@dataclass(frozen=True)
class Known:
    """What a stack's state knows: ids, ARNs and UIDs, of which types, and what was being made when
    an update was killed."""

    ids: frozenset[str]
    types: frozenset[str]
    pending: frozenset[Object] = frozenset()


def known(stack: str) -> Known:
    """What the state has of a stack; nothing where it has none."""
    latest = _state(stack) or {}
    resources: list[Any] = latest.get("resources") or []
    made = [(r.get("id"), r.get("outputs")) for r in resources]
    names = [n for id, has in made for n in (id, part(has, "arn"), part(has, "metadata", "uid"))]
    begun = [o["resource"].get("inputs") for o in latest.get("pending_operations") or []]
    return Known(
        frozenset(name for name in names if isinstance(name, str)),
        frozenset(str(r["type"]) for r in resources),
        frozenset(one for one in map(Object.of, begun) if one),
    )


def take_nothing_over(stack: str, platform: Cluster, *, whole: bool = True) -> None:
    """Asks whether the cluster has what the stack is to make, where its state made nothing there.

    Creating is a forced apply: it would change what is somebody's, and a destroy take it away. With
    another state than the one that made a platform, it would give that one other secrets.

    Args:
        whole: ask the program as well, by a preview; else only for what every platform begins with.

    Raises:
        BadInput: it has.
    """
    kept = known(stack)
    there = platform.items("/api/v1/namespaces")
    # A state may be of another cluster than the one that KUBECONFIG now names.
    if any(part(namespace, "metadata", "uid") in kept.ids for namespace in there):
        return
    # The engine keeps what was pending for good: it tells only of a first update, killed early.
    early = kept.types and "kubernetes:core/v1:Namespace" not in kept.types
    ours = kept.ids | kept.pending if early else kept.ids
    found = claims.taken(platform, _first(stack), ours)
    if not found and whole and _is_given(stack):
        found = claims.taken(platform, _previewed(stack), ours)
    if found:
        given = _is_given(stack)
        raise BadInput(
            f"its cluster has {claims.told(found)}, which the state of stack {stack} did not make",
            file=endpoints.kubeconfig(stack),
            fix=f"bring {_home()} of whoever made it, "
            + ("take another cluster, or delete it" if given else "or `make down ERASE=1`"),
        )


def _first(stack: str) -> list[Object]:
    """The namespaces of a stack, and the kinds that others are likely to have there, too."""
    meant = config(stack)
    kinds = KINDS if meant.cluster != "simulated" else ()
    return [
        *(Object("v1", "Namespace", name) for name in meant.namespaces),
        *(Object("apiextensions.k8s.io/v1", "CustomResourceDefinition", name) for name in kinds),
    ]


def _previewed(stack: str) -> list[Object]:
    """The objects that the program declares."""
    command = _command(stack, ("preview", "--json", "--non-interactive"))
    merged = {**os.environ, **environment(stack)}
    done = subprocess.run(command, cwd=paths.REPOSITORY, env=merged, capture_output=True, text=True)
    said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    if done.returncode:
        errors = [d["message"] for d in said.get("diagnostics", []) if d["severity"] == "error"]
        raise SlipwayError("\n".join(["pulumi preview failed", *errors, done.stderr]).strip())
    # What the program only reads is there, and stays whose it is.
    made = (step for step in said["steps"] if step["op"] != "read")
    declared = (Object.of(part(step, "newState", "inputs")) for step in made)
    return [one for one in declared if one]


def _locks(stack: str) -> Iterator[tuple[Path, bool]]:
    """Locks of a stack on this machine, and whether the process lives that holds it."""
    for lock in (_home() / "state" / ".pulumi" / "locks").glob(f"**/{stack}/*.json"):
        try:
            process = psutil.Process(json.loads(lock.read_text())["pid"])
            # The number may be another process's by now.
            yield lock, "pulumi" in process.name()
        except (ValueError, KeyError, psutil.NoSuchProcess):
            yield lock, False


def _unlock(stack: str) -> None:
    """Drops locks whose process is gone (a killed update leaves one); a living one stays."""
    for lock, alive in _locks(stack):
        if not alive:
            lock.unlink(missing_ok=True)


def _mend() -> None:
    """Drops attributes of the state that a killed update has left empty: with them the engine
    cannot read it, and does without."""
    for attributes in (_home() / "state" / ".pulumi").rglob("*.attrs"):
        if not attributes.stat().st_size:
            attributes.unlink(missing_ok=True)


def _command(stack: str, arguments: tuple[str, ...]) -> list[str]:
    command, words = arguments[0] if arguments else "", set(arguments[1:])
    changes = words & {"set", "set-all", "rm", "rm-all", "refresh", "cp"}
    if command == "config" and changes and not _sets_secret(arguments):
        raise BadInput(
            "Pulumi works on a copy of this file here",
            file=paths.told(paths.stack_file(stack)),
            fix="edit the file",
        )
    install_plugin()
    _unlock(stack)
    _mend()
    added = ["--stack", stack] if command in WITH_STACK else []
    if command in WITH_CONFIG:
        if is_on_aws(stack):
            toolchain.fetch(MANIFESTS_ON_AWS)
        if command in RUNS_PROGRAM and is_simulated(stack):
            _provide_simulation()
        added += ["--config-file", str(_stack_file(stack))]
    if command in ("up", "preview") and _interrupted(stack).exists():
        added.append("--refresh")
    named = any(word.partition("=")[0] == "--policy-pack" for word in words)
    if command in JUDGED and is_on_aws(stack) and not named:
        added += ["--policy-pack", str(POLICIES)]
    if command == "stack" and "rm" in words:
        added.append("--preserve-config")  # Pulumi would remove the committed file
    return [str(toolchain.binary("pulumi")), *arguments, *added]


def _interrupted(stack: str) -> Path:
    """Exists while a stack is destroyed, and after that was killed, or another state was brought:
    what the state says is not what the cluster has."""
    return _home() / f"destroying-{stack}"


def restoring(stack: str) -> Path:
    """Exists while a backup is restored to a stack: which one, and how far that is."""
    return _home() / f"restoring-{stack}"


def _look_first(stack: str, arguments: tuple[str, ...]) -> None:
    if not arguments or arguments[0] not in UPDATES:
        return
    _keep_the_forge(stack)
    # On AWS the stack makes the cluster, too.
    if not is_on_aws(stack):
        take_nothing_over(stack, Cluster.connect(stack))


def _keep_the_forge(stack: str) -> None:
    """A stack that has a Gitea does not lose it by a setting alone.

    Raises:
        BadInput: with the forge that the stack file names it would.
    """
    consent = os.environ.get(GIVE_UP, "") == "gitea"
    if consent or not names_a_forge(stack):
        return
    if "slipway:platform:Gitea" in known(stack).types:
        raise BadInput(
            f"with this forge stack {stack} gives up its Gitea: the repository, pull requests, who "
            "approved them, and the volume they are on",
            file=paths.told(paths.stack_file(stack)),
            field="slipway:forge",
            fix=f"copy all of it there first, as docs/forge.md says; then say {GIVE_UP}=gitea",
        )


def _sets_secret(arguments: tuple[str, ...]) -> bool:
    return arguments[:2] == ("config", "set") and "--secret" in arguments


def _take_over_secrets(stack: str) -> None:
    """What the engine has encrypted in its copy, written where the stack is."""
    file = paths.stack_file(stack)
    had = _committed(stack)["config"]
    copy = documents.parse_stack((_home() / f"Pulumi.{stack}.yaml").read_bytes(), file)["config"]
    text = file.read_text()
    for key, value in copy.items():
        if isinstance(value, dict) and set(value) == {"secure"} and had.get(key) != value:
            text = documents.with_setting(text, str(key), value, file)
    file.write_text(text)


def _begin(stack: str, arguments: tuple[str, ...]) -> dict[str, str]:
    """What comes before a command; variables that it wants besides."""
    _look_first(stack, arguments)
    if arguments[:1] != ("destroy",) or is_on_aws(stack):
        return {}
    _interrupted(stack).parent.mkdir(parents=True, exist_ok=True)
    _interrupted(stack).touch()
    # Writing the state after each of some hundred objects would take longer than removing them. One
    # that is gone already is removed without an error, so nothing hangs on it.
    return {"PULUMI_SKIP_CHECKPOINTS": "true"}


def run(stack: str, *arguments: str) -> int:
    """Runs `pulumi ARGUMENTS --stack STACK` on this terminal; returns its exit code."""
    code = _run(stack, arguments, _begin(stack, arguments))
    if code == 0 and _sets_secret(arguments):
        _take_over_secrets(stack)
    _settle(stack, arguments, code)
    return code


def _settle(stack: str, arguments: tuple[str, ...], code: int) -> None:
    """Forgets that a destroy was interrupted, once the state is right again."""
    ended = arguments[:1] == ("destroy",) and code >= 0  # less: killed, and nothing was written
    if ended or (arguments[:1] == ("up",) and code == 0):
        _interrupted(stack).unlink(missing_ok=True)


def _variables(stack: str, command: Sequence[str], more: Mapping[str, str]) -> dict[str, str]:
    merged = {**os.environ, **environment(stack), **more}
    if "--stack" in command and is_on_aws(stack):
        # Only Pulumi itself has AWS's plugin.
        merged["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "false"
    return merged


def _run(stack: str, arguments: tuple[str, ...], more: dict[str, str]) -> int:
    command = _command(stack, arguments)
    merged = _variables(stack, command, more)
    return subprocess.run(command, cwd=paths.REPOSITORY, env=merged).returncode


def follow(
    stack: str,
    *arguments: str,
    log: Path,
    on_line: Callable[[str], None],
    variables: Mapping[str, str] | None = None,
) -> int:
    """Runs the engine, hands its lines on as they come and keeps them in `log`.

    Args:
        variables: of the environment, which the program reads.
    """
    more = _begin(stack, arguments) | dict(variables or {})
    command = _command(stack, arguments)
    merged = _variables(stack, command, more)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as out,
        subprocess.Popen(
            command,
            cwd=paths.REPOSITORY,
            env=merged,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as engine,
    ):
        assert engine.stdout  # noqa: S101  # a pipe was asked for
        for line in engine.stdout:
            out.write(line)
            out.flush()
            on_line(line.rstrip())
    _settle(stack, arguments, engine.returncode)
    return engine.returncode


def install_plugin() -> None:
    """Installs the stand-in for the Kubernetes plugin, unless the official one is there."""
    script = paths.REPOSITORY / "toolchain" / "pulumi-kubernetes" / "install"
    done = subprocess.run(
        [sys.executable, script, "--offline"],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SlipwayError(f"the Kubernetes plugin cannot be installed: {done.stderr.strip()}")
