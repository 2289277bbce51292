"""Whole runs with six servers that speak OpenAI's chat API each in its own way; `python -m benchmarks.dialects`.

The servers are those of the tests: they refuse what the services' documentation says that they refuse, and the model behind each says the
same thing every time, so the runs show what the client makes of a server and nothing of a model.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers.dialects import KEY, VLLM, Anthropic, Azure, Dialect, LMStudio, Mistral, OpenAINow

SETTINGS = [
    "data.symbols=[AAPL,IBM]", "folds.train_years=3", "folds.test_months=60", "training.members=1", "training.total_timesteps=512",
    "training.n_envs=4", "training.n_steps=64", "training.batch_size=128", "evaluation.replications=100", "evaluation.placebo_draws=2",
    "evaluation.robustness.enabled=false", "evaluation.recombination.enabled=false", "hybrid.enabled=false",
    "pipeline.pause_between_phases=0", "llm.provider=openai", "llm.cadence_bars=100",
]  # fmt: skip


def run(server: Dialect, home: Path) -> list[str]:
    """One run, as a line of the table."""
    out, settings = home / "run", [*SETTINGS, f"llm.model={server.model}", f"llm.host={server.url}"]
    words = [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"PLOUTOS_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    environment |= {} if isinstance(server, LMStudio) else {"OPENAI_API_KEY": KEY}  # it takes none
    command = [sys.executable, "-m", "ploutos", "run", "--preset", "full", "--source", "sample", "--out", str(out), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return [type(server).__name__, str(done.returncode), done.stderr.strip().splitlines()[-1], "", "", ""]
    asked = json.loads((out / "manifest.json").read_bytes())["llm"]
    counts = [f"{asked[name]:,}" for name in ("questions", "abstentions", "failures")]
    return [type(server).__name__, "0", *counts, f"{len(server.asked):,}"]


def main() -> None:
    print("| server | exit code | questions | abstentions | failed calls | requests |\n|---|---:|---:|---:|---:|---:|", flush=True)
    for kind in (OpenAINow, Azure, Mistral, Anthropic, VLLM, LMStudio):
        with kind() as server, TemporaryDirectory() as home:
            print("| " + " | ".join(run(server, Path(home))) + " |", flush=True)


if __name__ == "__main__":
    main()
