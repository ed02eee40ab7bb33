#!/bin/sh
# divide-gpus PROFILE COUNT MARKER: divides each GPU of this machine into COUNT instances of PROFILE.
# The kubelet waits for it at every start, since instances do not outlive a reboot, and does not
# start where it fails: a node whose GPUs are whole would be taken for one that offers parts.
# MARKER is a file that says that the machine was rebooted for this.
set -eu
profile=$1 count=$2 marker=$3

divisible() {
    modes=$(nvidia-smi --query-gpu=mig.mode.current --format=csv,noheader)
    ! echo "$modes" | grep --quiet --invert-match --line-regexp Enabled
}

parts() {
    nvidia-smi --list-gpus | grep --count --fixed-strings "MIG $profile " || true
}

# Where the driver does not answer yet, the kubelet tries again.
nvidia-smi --list-gpus > /dev/null
divisible || nvidia-smi --multi-instance-gpu 1 || true
if ! divisible; then
    # An A100 needs a reset, and in a virtual machine a reboot is the only one. Then it remembers.
    if [ -e "$marker" ]; then
        echo "MIG is off, though a reboot was asked for" >&2
    else
        touch "$marker"
        echo "MIG is on after a reboot: rebooting" >&2
        systemctl reboot
    fi
    exit 1
fi
wanted=$(($(nvidia-smi --list-gpus | grep --count '^GPU ') * count))
if [ "$(parts)" -ne "$wanted" ]; then
    # None may be there: that is no failure.
    nvidia-smi mig --destroy-compute-instance || true
    nvidia-smi mig --destroy-gpu-instance || true
    each=$profile
    for _ in $(seq 2 "$count"); do each=$each,$profile; done
    nvidia-smi mig --create-gpu-instance "$each" --default-compute-instance
fi
if [ "$(parts)" -ne "$wanted" ]; then
    echo "$(parts) instances of $profile in place of $wanted" >&2
    exit 1
fi
