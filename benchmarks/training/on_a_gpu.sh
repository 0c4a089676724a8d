#!/bin/bash
# The comparison's text workloads on one GPU: each contestant's study is a process of its own, some
# at a time, in the order of what they answer. Stopped at any time, it goes on.
#
#     benchmarks/training/on_a_gpu.sh ROWS TOKENS SECONDS [PROCESSES]
#
# ROWS is the results file, TOKENS the folder of `run.py --save-tokens`.
set -u
rows=$1 tokens=$2 seconds=$3 processes=${4:-6}
here=$(dirname "$0")
export XLA_PYTHON_CLIENT_PREALLOCATE=false
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-/tmp/jax-compiled}
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0"
study() { # workload, together, stages, contestants: for each a line of arguments
    for contestant in "${@:4}"; do
        echo "--workload $1 --together $2 --stage $3 --contestants $contestant"
    done
}
both() { # stages, contestants
    for contestant in "${@:2}"; do
        study lm 16 "$1" "$contestant"
        study mlm-128 16 "$1" "$contestant"
    done
}
all="tune refine confirm"
{
    # In one process, as each tries the other's choice.
    both "$all defaults" "adamw acclip"
    both "$all" muon acclip_nesterov lion adam clip_adamw_moment
    study mlm-16 32 "$all defaults" "adamw acclip"
    # What ACClip's defaults may become: on both sizes of a batch, then the best on all.
    study mlm-128 16 choose-defaults "acclip acclip_nesterov"
    study mlm-16 32 choose-defaults "acclip acclip_nesterov"
    study mlm-16 32 "$all" muon acclip_nesterov lion adam clip_adamw_moment
    both "$all" acclip_cautious acclip_smooth acclip_relative acclip_corrected
    both "choose-defaults defaults" "adamw acclip acclip_nesterov"
    study mlm-16 32 "choose-defaults defaults" "adamw acclip acclip_nesterov"
    both sweep adamw acclip
    study mlm-16 32 "$all" acclip_cautious acclip_smooth acclip_relative acclip_corrected \
        acclip_gradient acclip_multiple acclip_nesterov_cautious acclip_nesterov_smooth
} | timeout "$seconds" xargs -P "$processes" -L 1 \
    python3 "$here/run.py" --processes 1 --rows "$rows" --tokens "$tokens"
