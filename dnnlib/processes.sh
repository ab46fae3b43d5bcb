# shellcheck shell=bash disable=SC2154
# Sourced after environment.sh by the scripts that use several GPUs. NGPU is the number of processes: by default one for
# each visible GPU, or one on the CPU.

# Counts the GPUs without starting torch.
visible_gpus() {
    local present listed
    if command -v nvidia-smi >/dev/null; then
        present=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
    else
        present=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l)
    fi
    # CUDA stops reading its list at the first -1.
    listed=$(tr ',' '\n' <<<"${CUDA_VISIBLE_DEVICES-all}" | sed '/^-1/,$d' | grep -c . || true)
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]] && ((listed < present)); then echo "$listed"; else echo "$present"; fi
}

if [[ -z ${NGPU:-} ]]; then
    NGPU=$(visible_gpus)
    ((NGPU > 0)) || NGPU=1
elif [[ ! $NGPU =~ ^[1-9][0-9]*$ ]]; then
    echo "Error: NGPU=$NGPU is not a number of processes: give 1 or more, or leave it unset." >&2
    exit 2
fi

# Replaces this shell with a program: launch SCRIPT [OPTIONS]. One process runs directly, several run through torchrun,
# whose variables PET_NNODES and so on describe several machines. It gives each process the variables of its rank; those
# that the environment has already, from a cluster or an earlier shell, would be taken for them.
launch() {
    unset RANK LOCAL_RANK GROUP_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT TORCHELASTIC_USE_AGENT_STORE
    # Each process gets its share of the cores, and a single one leaves a core free: OpenMP's threads spin while they wait
    # for each other, so if another program needs one of their cores, every step takes many times longer.
    local threads cores
    cores=$(getconf _NPROCESSORS_ONLN)
    threads=$((NGPU > 1 ? cores / NGPU : cores - 1))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
    [[ $NGPU != 1 || ${PET_NNODES:-1} != 1 ]] || exec "$PYTHON" "$@"
    exec "$PYTHON" "$genvs_root/torch_utils/launch.py" --nproc-per-node="$NGPU" "$@"
}
