"""`python -m slipway.steps STEP …`: runs one step and writes its outputs, a file each."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

# Thread pools of numeric libraries cost more than they give on two cores, and must be told before
# the libraries load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from slipway import bento, release
from slipway.errors import SlipwayError

# What is worth another try (BSD's EX_TEMPFAIL); the workflow's retryStrategy knows this number.
TRANSIENT = 75

FLAGS = {
    "ingest": (),
    "validate": ("data",),
    "train": ("data", "commit"),
    "evaluate": ("data", "commit", "model-digest", "run", "validation"),
    "package": ("evaluation",),
    "experiment": ("data", "commit", "search", "number"),
    "collect": ("commit", "search", "real"),
    "rebuild": ("data",),
    "rescore": ("environment", "evaluation"),
    "select": ("environment", "from-environment"),
    "attest": (
        "environment",
        "commit",
        "evaluation",
        "serving",
        "dependencies",
        "bento",
        "bento-size",
        "version",
        "runtime-image",
        "champion",
        "champion-predictions",
    ),
    "propose": (
        "environment",
        "evidence",
        "break-glass",
        "dry-run",
        "requested-by",
    ),
}
# Steps of main's code, which know a model by its name alone: its folder may not be on main yet.
TRUSTED = ("rescore", "select", "attest", "propose")

# Steps about the repository as a whole: no model, and nothing that another step reads.
OVERALL = ("dispatch", "follow", "gates", "hold", "sweep")


def parser() -> argparse.ArgumentParser:
    """The command line; every value is a digest, a commit, a name or a number."""
    top = argparse.ArgumentParser(prog="python -m slipway.steps", description=__doc__)
    steps = top.add_subparsers(dest="step", required=True)
    for step, flags in FLAGS.items():
        sub = steps.add_parser(step)
        sub.add_argument("--model", required=True, help="folder name under bentos/")
        sub.add_argument("--output-dir", type=Path, required=True, help="a file for each output")
        for flag in flags:
            sub.add_argument(f"--{flag}", required=True)
    overall = {step: steps.add_parser(step) for step in OVERALL}
    for sub in overall.values():
        sub.add_argument("--output-dir", type=Path, help="a file for each output")
    for name in ("follow", "sweep"):
        overall[name].add_argument("--wait", default="0", help="seconds to wait for pods")
    overall["gates"].add_argument("--pull", type=int, help="its number; default: all open ones")
    return top


def main(argv: list[str] | None = None) -> int:
    """Runs a step. 0 done, 1 failed, 2 bad input, 75 worth a retry."""
    arguments = vars(parser().parse_args(argv))
    step: str = arguments.pop("step")
    output: Path | None = arguments.pop("output_dir")
    began = time.monotonic()
    try:
        about: list[object] = []
        if step not in OVERALL:
            model: str = arguments.pop("model")
            known = release.check_model_name if step in TRUSTED else bento.find
            about = [known(model)]
        module = importlib.import_module(f"slipway.steps.{step}")
        outputs: dict[str, str] = module.run(*about, **arguments)
    except Exception as error:
        if is_transient(error):
            print(f"{step}: {error}\n  worth a retry", file=sys.stderr)
            return TRANSIENT
        if not isinstance(error, SlipwayError):
            raise
        print(f"{step}: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in outputs.items():
        if output:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(value)
        print(f"{name}: {value.strip()}")
    print(f"{step}: done in {time.monotonic() - began:.1f} s")
    return 0


def is_transient(error: BaseException) -> bool:
    """Whether the store, MLflow or the forge may answer when asked again."""
    from slipway.store import Unreachable

    if isinstance(error, Unreachable | ConnectionError | TimeoutError):
        return True
    # Their 0 is no answer. Looked at by name: importing each client costs its step seconds.
    status = getattr(error, "status", None)
    if type(error).__name__ in ("ForgeError", "ClusterError"):
        return status == 0 or (isinstance(status, int) and status >= 500)
    if type(error).__name__ in ("MlflowException", "RestException"):
        code = str(getattr(error, "error_code", ""))
        return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
    # requests, under MLflow, has a ConnectionError of its own (an OSError).
    return type(error).__module__.startswith("requests")


if __name__ == "__main__":
    sys.exit(main())
