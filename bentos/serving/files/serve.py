"""Serves a bento in this one process; Kubernetes is the supervisor already.

Usage: serve.py FOLDER PORT GRACE_SECONDS, on all interfaces or on the one that SLIPWAY_HOST names.

`bentoml serve` is a second process, which imports everything before the one that answers may begin
to: twice the time to the first prediction, and its memory as long as the replica lives. A bento
that needs it (workers, dependent services, tasks, hooks, models of BentoML's own store) gets it.
"""

import fcntl
import os
import socket
import sys
import tempfile
from pathlib import Path

import yaml


def needs_supervisor(folder):
    """What in the bento only `bentoml serve` knows how to run; "" if nothing."""
    bento = yaml.safe_load((folder / "bento.yaml").read_text())
    [service, *others] = bento["services"]
    config = service.get("config") or {}
    if others or service["dependencies"]:
        return "dependent services"
    # GPUs alone need none: those that a container sees are its own.
    if config.get("workers", 1) != 1:
        return "workers"
    if bento.get("models") or service["models"] or bento.get("envs"):
        return "models or variables that BentoML resolves"
    if any(route.get("is_task") for route in bento["schema"]["routes"]):
        return "tasks"
    sources = (folder / "src").rglob("*.py")
    return "hooks" if any("on_deployment" in source.read_text() for source in sources) else ""


def hold(log):
    """Until this process and what it starts are gone, ship_predictions.py waits for more lines."""
    lock = os.open(Path(log).with_name("writing"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock, True)


def main(folder, port, grace):
    if log := os.environ.get("SLIPWAY_PREDICTION_LOG"):
        hold(log)
    grace = f"--timeout-graceful-shutdown={grace}"
    host = os.environ.get("SLIPWAY_HOST", "0.0.0.0")  # noqa: S104
    if why := needs_supervisor(Path(folder)):
        print(f"served with a supervisor: the bento has {why}", flush=True)
        command = ["bentoml", "serve", folder, f"--host={host}", f"--port={port}", grace]
        os.execvp(command[0], command)  # noqa: S606
    # Bound first: a port that is taken is said at once.
    listener = socket.create_server((host, int(port)), backlog=2048)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="prometheus-")
    # The process that `bentoml serve` would start, as it would.
    from _bentoml_impl.worker.service import main as worker

    worker([folder, f"--fd={listener.detach()}", "--worker-id=1", grace])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
