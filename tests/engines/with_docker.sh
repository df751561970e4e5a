#!/usr/bin/env bash
# Runs a command with a Docker engine: the one that is here, or else one that is started for it and stopped afterwards (as root,
# with Debian's packages docker.io and debootstrap). The image that the functions of a runtime run on is pulled, or, where no
# registry can be reached, made from Debian and Lambda's own runtime client.
#
#     tests/engines/with_docker.sh python3.13 x86_64 make …
set -euo pipefail

runtime=$1 architecture=$2
shift 2
version=${runtime#python}
image=public.ecr.aws/lambda/python:$version-$architecture
data=${DOCKER_DATA:-$PWD/.tools/docker}
python=${PYTHON:-.venv/bin/python}
declare -A release=([3.11]=bookworm [3.13]=trixie)
# For SAM: what is here is not looked for again.
export SAM_SKIP_PULL_IMAGE=1

start() {
    command -v dockerd >/dev/null || {
        echo "There is no Docker engine, nor one to start: apt-get install --no-install-recommends docker.io debootstrap" >&2
        exit 2
    }
    mkdir -p "$data"
    export DOCKER_HOST=unix://$data/docker.sock
    # Containers need to reach this machine and no other, so no rules of a firewall, which take rights that few sandboxes have.
    dockerd --iptables=false --ip6tables=false --ip-masq=false --default-ulimit nofile=1024:1024 --data-root "$data/data" \
        --exec-root "$data/exec" --pidfile "$data/pid" --host "$DOCKER_HOST" >"$data/log" 2>&1 &
    engine=$!
    trap 'kill "$engine"; wait "$engine" || true' EXIT
    until docker version >/dev/null 2>&1; do
        kill -0 "$engine" 2>/dev/null || { tail -5 "$data/log" >&2; exit 2; }
        sleep 0.2
    done
}

from_debian() {
    [[ -n ${release[$version]:-} ]] || { echo "No release of Debian has Python $version" >&2; exit 2; }
    local root
    root=$(mktemp -d)
    debootstrap --variant=minbase --include=python3,ca-certificates "${release[$version]}" "$root" >/dev/null
    "$python" -m pip install --quiet --target "$root/usr/lib/python3/dist-packages" --python-version "$version" \
        --platform "manylinux2014_${architecture/arm64/aarch64}" --platform "manylinux_2_28_${architecture/arm64/aarch64}" \
        --implementation cp --only-binary=:all: "awslambdaric==$("$python" -c '
from importlib.metadata import version
print(version("awslambdaric"))')"
    mkdir -p "$root"/var/runtime "$root"/var/task
    cat >"$root/var/runtime/bootstrap" <<'BOOTSTRAP'
#!/bin/sh
# As Lambda starts a function: through its wrapper, when it has one.
export PYTHONPATH=/var/task:/opt/python
exec $AWS_LAMBDA_EXEC_WRAPPER /usr/bin/python3 -m awslambdaric "$_HANDLER"
BOOTSTRAP
    chmod 755 "$root/var/runtime/bootstrap"
    tar -C "$root" -c . | docker import --change 'WORKDIR /var/task' - "$image" >/dev/null
    rm -rf "$root"
}

docker version >/dev/null 2>&1 || start
docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" || from_debian
"$@"
