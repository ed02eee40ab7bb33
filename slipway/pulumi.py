"""Runs the Pulumi engine on this project: its own state, plugins and passphrase, none in git."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from slipway import paths, toolchain
from slipway.errors import BadInput, SlipwayError, did_you_mean

PROJECT = "slipway"
# Where the language host and the helpers that it starts are found.
LANGUAGE_HOST = paths.REPOSITORY / "toolchain" / "pulumi-language-python"


def is_embedded(stack: str) -> bool:
    """Whether the stack runs on the cluster that Slipway starts: no KUBECONFIG names another.

    Raises:
        BadInput: there is no such stack.
    """
    named = os.environ.get("KUBECONFIG")
    if named and Path(named).resolve() != paths.kubeconfig().resolve():
        return False
    config = yaml.safe_load(_committed(stack).read_text()) or {}
    return (config.get("config") or {}).get("slipway:cluster") == "embedded"


def _committed(stack: str) -> Path:
    file = paths.REPOSITORY / "environments" / f"Pulumi.{stack}.yaml"
    if not file.exists():
        known = [f.name.split(".")[1] for f in file.parent.glob("Pulumi.*.yaml")]
        raise BadInput(f"no such stack: {stack}", file=file, fix=did_you_mean(stack, known))
    return file


def _home() -> Path:
    return paths.data() / "pulumi"


def environment() -> dict[str, str]:
    """Variables with which `pulumi` itself (and `slipway pulumi`) works on this project."""
    home = _home()
    passphrase = home / "passphrase"
    if not passphrase.exists():
        (home / "state").mkdir(parents=True, exist_ok=True)
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(32))
    folders = [
        Path(sys.executable).parent,
        LANGUAGE_HOST / "bin",
        toolchain.binary("pulumi").parent,
        toolchain.binary("pulumi-language-python").parent,
    ]
    return {
        "PATH": ":".join([*map(str, dict.fromkeys(folders)), os.environ.get("PATH", "")]),
        "PULUMI_HOME": str(home / "home"),
        "PULUMI_BACKEND_URL": f"file://{home}/state",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        # What the program declares wins over a hand edit; repairing drift would be a conflict.
        "PULUMI_K8S_ENABLE_PATCH_FORCE": "true",
        "PYTHONPATH": str(paths.REPOSITORY),
    }


def _stack_file(stack: str) -> Path:
    """The committed stack file plus the salt of this machine's passphrase, outside the checkout.

    Pulumi would write the salt into the committed file, where every machine would change it.
    """
    document = yaml.safe_load(_committed(stack).read_text())
    if not is_embedded(stack):
        document["config"] |= {"slipway:cluster": "kubeconfig", "slipway:nodePorts": False}
    salt_file = _home() / f"salt.{stack}"
    if not salt_file.exists():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
            command = ["pulumi", "stack", "init", stack, "--non-interactive"]
            merged = {**os.environ, **environment()}
            done = subprocess.run(command, cwd=folder, env=merged, capture_output=True, text=True)
            if done.returncode:
                raise SlipwayError(f"pulumi stack init {stack}: {done.stderr.strip()}")
            written = yaml.safe_load(Path(folder, f"Pulumi.{stack}.yaml").read_text())
        salt_file.write_text(written["encryptionsalt"])
    merged_file = _home() / f"Pulumi.{stack}.yaml"
    merged_file.write_text(
        yaml.safe_dump({"encryptionsalt": salt_file.read_text(), **document}, sort_keys=False)
    )
    return merged_file


def _unlock(stack: str) -> None:
    """Drops locks whose process is gone (a killed update leaves one); a living one stays."""
    for lock in (_home() / "state" / ".pulumi" / "locks").glob(f"**/{stack}/*.json"):
        owner = json.loads(lock.read_text() or "{}")
        if not Path(f"/proc/{owner.get('pid', 0)}").exists():
            lock.unlink(missing_ok=True)


def _command(stack: str, arguments: tuple[str, ...]) -> list[str]:
    install_plugin()
    _unlock(stack)
    config = ["--config-file", str(_stack_file(stack))] if _takes_config(arguments) else []
    return [str(toolchain.binary("pulumi")), *arguments, "--stack", stack, *config]


def run(stack: str, *arguments: str) -> int:
    """Runs `pulumi ARGUMENTS --stack STACK` on this terminal; returns its exit code."""
    merged = {**os.environ, **environment()}
    command = _command(stack, arguments)
    return subprocess.run(command, cwd=paths.REPOSITORY, env=merged).returncode


def follow(stack: str, *arguments: str, log: Path, on_line: Callable[[str], None]) -> int:
    """Runs the engine, hands its lines on as they come and keeps them in `log`."""
    merged = {**os.environ, **environment()}
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as out,
        subprocess.Popen(
            _command(stack, arguments),
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
    return engine.returncode


def _takes_config(arguments: tuple[str, ...]) -> bool:
    return bool(arguments) and arguments[0] in {
        *("up", "update", "preview", "refresh", "destroy", "config", "watch", "import")
    }


def install_plugin() -> None:
    """Installs the stand-in for the Kubernetes plugin, unless the official one is installed."""
    script = paths.REPOSITORY / "toolchain" / "pulumi-kubernetes" / "install"
    done = subprocess.run(
        [sys.executable, script, "--offline"],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SlipwayError(f"the Kubernetes plugin cannot be installed: {done.stderr.strip()}")
