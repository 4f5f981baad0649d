"""How long ``import perfnb`` takes, beside an interpreter that imports nothing and one that imports pandas.

Claim: under 0.2 s. The three are run in turns, and medians of fresh processes are compared.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

CLAIM_S = 0.2
PROGRAMS = {"nothing": "", "perfnb": "import perfnb", "pandas": "import pandas"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    options = parser.parse_args()
    result = measured(options.rounds)
    if options.format == "json":
        print(json.dumps(result))
        return
    print(f"import perfnb: {result['perfnb_s'] * 1000:.0f} ms (claim: under {CLAIM_S * 1000:.0f} ms)")
    print(f"import pandas takes {result['pandas_ratio']:.0f} times as long")


def measured(rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            times[name].append(_seconds(program))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    perfnb_s = medians["perfnb"] - medians["nothing"]
    pandas_s = medians["pandas"] - medians["nothing"]
    return {"perfnb_s": perfnb_s, "pandas_s": pandas_s, "pandas_ratio": pandas_s / perfnb_s, "claim_s": CLAIM_S}


def _seconds(program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
