"""How vLLM runs the model: the part `engine` of model.yaml, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Engine(BaseModel):
    """Each field is the option of `vllm serve` of that name. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # Of the weights: as they are stored (awq, gptq, …), or made while loading (fp8).
    quantization: Literal["awq", "gptq", "compressed-tensors", "bitsandbytes", "fp8"] | None = None
    dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    # Tokens of a prompt and its answer together.
    max_model_len: Annotated[int, Field(ge=256, le=1 << 20)]
    # Share of each GPU's memory for weights and KV cache together.
    gpu_memory_utilization: Annotated[float, Field(ge=0.1, le=0.95)] = 0.9
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    # Prompts that begin alike are computed once.
    enable_prefix_caching: bool = True
    # Answered at once; more wait.
    max_num_seqs: Annotated[int, Field(ge=1, le=1024)] = 64
    # GPUs over which the weights are split.
    tensor_parallel_size: Literal[1, 2, 4, 8] = 1

    def options(self) -> list[str]:
        """The settings as `vllm serve` is given them."""
        given: list[str] = []
        for name, value in self.model_dump(exclude_none=True).items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                given.append(f"--{option}" if value else f"--no-{option}")
            else:
                given.append(f"--{option}={value}")
        return given

    def check_fits(self, gpus: int) -> None:
        """Refuses settings for other GPUs than those that this replica was given."""
        if self.tensor_parallel_size != gpus:
            raise ValueError(
                f"model.yaml: engine.tensor_parallel_size: {self.tensor_parallel_size} needs as "
                f"many GPUs, the release asks for {gpus}\n  fix: make rollout.gpu.count "
                f"{self.tensor_parallel_size}, or split the weights over {gpus}"
            )


def load(file: Path) -> Engine:
    """The engine's settings in model.yaml; `ValidationError` names each wrong field."""
    return Engine.model_validate(yaml.safe_load(file.read_text())["engine"])
