#!/bin/bash
# The comparison's text workloads on one GPU: each contestant's study is a process of its own, some
# at a time, in the order of what they answer. Stopped at any time, it goes on.
#
#     benchmarks/training/on_a_gpu.sh ROWS TOKENS SECONDS [PROCESSES]
#
# ROWS is the results file, TOKENS the folder of `run.py --save-tokens`.
set -u
rows=$1 tokens=$2 seconds=$3 processes=${4:-12}
here=$(dirname "$0")
export XLA_PYTHON_CLIENT_PREALLOCATE=false
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-/tmp/jax-compiled}
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0"
study() { # workload, together, contestants: for each a line of arguments
    for contestant in "${@:3}"; do
        echo "--workload $1 --together $2 --contestants $contestant --stage tune confirm"
    done
}
{
    study mlm-16 32 adamw acclip acclip_nesterov muon lion adam clip_adamw_moment
    study mlm-128 16 adamw acclip
    study mlm-16 32 acclip_cautious acclip_smooth acclip_relative acclip_nesterov_cautious
    study mlm-128 16 acclip_nesterov muon lion
    study lm 16 adamw acclip
    study mlm-16 32 acclip_corrected acclip_gradient acclip_multiple acclip_nesterov_smooth
    study mlm-128 16 adam clip_adamw_moment
    study lm 16 acclip_nesterov muon lion adam clip_adamw_moment
} | timeout "$seconds" xargs -P "$processes" -L 1 \
    python3 "$here/run.py" --processes 1 --rows "$rows" --tokens "$tokens"
