"""What a stack costs a month, said when it is previewed, and kept in its outputs."""

from __future__ import annotations

import pulumi

from infra.config import StackConfig
from slipway import cost
from slipway.errors import BadInput


def tell(config: StackConfig, stack: str) -> None:
    """Says floor and ceiling in a preview, and exports them: there the engine shows what changes.

    What has no price stops nothing: it is said.
    """
    table = cost.prices()
    try:
        estimate = cost.estimate(config, stack, table)
    except BadInput as error:
        pulumi.log.warn(f"what {stack} costs is not known: {error}")
        return
    if estimate is None:
        return
    if pulumi.runtime.is_dry_run():
        pulumi.log.info(cost.told(estimate, table))
    amounts = {"floor": estimate.floor, "ceiling": estimate.ceiling}
    pulumi.export(
        f"monthly{table.currency}", {name: f"{amount:.2f}" for name, amount in amounts.items()}
    )
