#!/usr/bin/env bash
# Runs aavs_jax on every worker of a Cloud TPU pod slice that exists already.
#   NAME=my-slice ZONE=us-east5-a WORKDIR=/mnt/share/runs/avss launch/tpu_vm.sh [--config...=...]
set -euo pipefail
: "${NAME:?name of the TPU}" "${ZONE:?its zone}" "${WORKDIR:?folder that all workers see}"
REPOSITORY=${REPOSITORY:-aavs_jax}        # the clone on the workers, with .venv and ".[tpu]" in it
CONFIG=${CONFIG:-configs/avss.py}

command="cd $REPOSITORY && . .venv/bin/activate && python -m aavs_jax.main --distributed"
command+=" --config=$CONFIG --workdir=$WORKDIR"
for argument in "$@"; do command+=" $(printf '%q' "$argument")"; done
echo "on all workers of $NAME: $command"
gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$command"
