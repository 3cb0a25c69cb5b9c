"""What benchmarks/pretrain_gpu.py has found so far, and the files it goes to."""

import json
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from step import table

from visa.pretrain.cost import flops_per_image
from visa.provenance import write_rows, write_text

STARTED = time.monotonic()
VIEWS = {"simsiam": (2, 0), "mocov2": (1, 1), "simclr": (2, 0), "supervised": (1, 0)}  # learned from, looked at
SPD_VIEWS = {"simsiam": 3, "mocov2": 3, "simclr": 3, "supervised": 2}
SHOWN = (
    *("pretraining", "input", "mode", "images_per_second", "ratio", "of_network", "of_peak", "step_ms", "views_ms"),
    *("blend_percent", "memory_gib", "full_run_hours"),
)
MORE = (
    *("batch", "bare_images_per_second", "ratio_with_optimizer", "blend_ms", "bare_ms", "optimizer_ms"),
    *("rest_ms", "repeats", "flops_per_image"),
)
flops = cache(flops_per_image)


@dataclass
class Report:
    """What is known so far; written after each part."""

    out: Path
    facts: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    networks: dict[str, dict[str, float]] = field(default_factory=dict)  # what -> learn, look: views/s
    left_out: list[str] = field(default_factory=list)

    def write(self) -> None:
        for row in self.rows:
            self.relate(row)
        self.facts["seconds"] = time.monotonic() - STARTED
        write_rows(self.out / "pretrain_gpu.csv", [*SHOWN, *MORE], self.rows)
        record = {**self.facts, "networks": self.networks, "rows": self.rows, "left_out": self.left_out}
        write_text(self.out / "pretrain_gpu.json", json.dumps(record, indent=1) + "\n")

    def relate(self, row: dict[str, Any]) -> None:
        """Shares of the network's rate and of the matrix peak, as far as these are measured."""
        method, _, spd = row["pretraining"].partition("+")
        if not row.get("images_per_second") or method not in VIEWS:
            return
        learned, looked = VIEWS[method]
        learned += SPD_VIEWS[method] if spd else 0
        if self.networks:
            best = {kind: max(rates[kind] for rates in self.networks.values()) for kind in ("learn", "look")}
            row["of_network"] = row["images_per_second"] * (learned / best["learn"] + looked / best["look"])
        if peak := self.facts.get("matrix_peak"):
            row["of_peak"] = row["images_per_second"] * row["flops_per_image"] / peak

    def show(self) -> None:
        print("\n" + table(self.rows, SHOWN))
        for what, rates in self.networks.items():
            print(f"network alone, {what}: " + ", ".join(f"{kind} {rate:.0f} views/s" for kind, rate in rates.items()))
        print(f"matrix peak: {self.facts.get('matrix_peak', 0) / 1e12:.1f} Tflop/s in bf16")
        for what in self.left_out:
            print(f"left out: {what}")
        print(f"{time.monotonic() - STARTED:.0f} s; written to {self.out}", flush=True)
