"""`slipway doctor`"""

from __future__ import annotations

from dataclasses import asdict

import typer

from slipway import doctor, pulumi, up
from slipway.commands import Output, err, show_json
from slipway.errors import FAILED


def command(output: Output = "text") -> None:
    """What this machine lacks, what will be installed, how long that takes. Changes nothing."""
    findings = doctor.examine(embedded=pulumi.is_embedded(up.STACK))
    if output == "json":
        show_json([asdict(finding) for finding in findings])
    else:
        doctor.show(findings, err)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(FAILED)
