"""Options of other programs that the documentation uses.

Each was looked up in the program's own help, manual page or source, in the version that
docs/scale.md names. A new one is added here after the same.
"""

from __future__ import annotations

VLLM = frozenset(
    {
        *("--host", "--port", "--served-model-name", "--max-model-len", "--dtype"),
        *(
            "--tensor-parallel-size",
            "--data-parallel-size",
            "--pipeline-parallel-size",
            "--stream-interval",
        ),
        *("--distributed-executor-backend", "--nnodes", "--node-rank", "--master-addr"),
        *("--headless", "--api-key", "--generation-config", "--reasoning-parser"),
        *("--reasoning-config", "--default-chat-template-kwargs"),
    }
)
SGLANG = frozenset(
    {
        *("--model-path", "--host", "--port", "--served-model-name", "--context-length"),
        *("--tp-size", "--dp-size", "--nnodes", "--node-rank", "--dist-init-addr", "--api-key"),
        *("--reasoning-parser", "--enable-strict-thinking", "--enable-deterministic-inference"),
    }
)
LLAMA_CPP = frozenset(
    {
        *("--alias", "--host", "--port", "--api-key", "--jinja", "--chat-template-file"),
        *("--parallel", "--ctx-size", "--reasoning", "--reasoning-format", "--reasoning-budget"),
        *("--reasoning-budget-message", "--context-shift", "--kv-unified"),
    }
)
FLAGS = {
    "vllm": VLLM,
    "sglang.launch_server": SGLANG,
    "llama-server": LLAMA_CPP,
    "ray": frozenset({"--head", "--port", "--address"}),
    "transformers": frozenset({"--host", "--port", "--continuous-batching"}),
    "sbatch": frozenset(
        {
            *("--job-name", "--nodes", "--ntasks-per-node", "--cpus-per-task"),
            *("--gpus-per-node", "--exclusive", "--time", "--dependency"),
        }
    ),
    "srun": frozenset({"--ntasks-per-node", "--cpus-per-task", "--output"}),
    "kubectl": frozenset({"--from-literal", "--timeout", "--follow", "--for"}),
    "curl": frozenset({"--silent", "--fail", "--output"}),
    "timeout": frozenset({"--signal", "--kill-after"}),
    "pip": frozenset({"--extra-index-url"}),
}
"""Long options by program, as commands name it."""

ALL = frozenset().union(*FLAGS.values())
