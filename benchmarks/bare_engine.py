"""What phase 1 generates, by the engine alone: no pytest, no store, no reports.

python -m benchmarks.bare_engine --model nano-reasoner --num-samples 400 --cap 1024
"""

from __future__ import annotations

import argparse
import json
import time

from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.tasks.registry import load_task


def main() -> None:
    """Generate every trace once and print how many tokens that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", default="word-problems")
    parser.add_argument("--num-samples", type=int, required=True)
    parser.add_argument("--cap", type=int, required=True)
    args = parser.parse_args()
    engine = TransformersEngine(resolve_model(args.model, load_catalogue()))
    requests = [
        Request(problem.id, engine.render(problem.messages, False).ids, args.cap)
        for problem in load_task(args.task).problems(args.num_samples)
    ]
    started = time.perf_counter()
    lengths = [len(result.output_ids) for result in engine.generate(requests, Decoding())]
    seconds = time.perf_counter() - started
    print(json.dumps({"traces": len(lengths), "tokens": sum(lengths), "seconds": seconds}))


if __name__ == "__main__":
    main()
