#!/bin/bash
# Installs ec2-spot-worker on an instance in EC2, and starts it.
#
# It is the user data of an instance that something else than worker-manager
# launches: fill in what is below. Instances of worker-manager have other user
# data: run it once, with START=no, on the instance that their image is made of.
# docs/operators/ec2.md has the details.
set -euo pipefail

# Where the program is, and its SHA-256.
: "${DOWNLOAD_URL:=https://downloads.example.com/ec2-spot-worker-linux-amd64}"
: "${DOWNLOAD_SHA256:=0000000000000000000000000000000000000000000000000000000000000000}"

# Whether the worker starts now: no, where an image is made.
: "${START:=yes}"

# The worker's configuration: what neither worker-manager's user data nor the
# worker pool says.
configuration='lifecycle: {maxIdle: 15m}'
: "${CONFIGURATION:=$configuration}"

# Where the root of the file system is: elsewhere while an image is made.
: "${ROOT:=}"

program=$ROOT/usr/local/bin/ec2-spot-worker
units=$ROOT/etc/systemd/system

download=$(mktemp)
trap 'rm -f "$download"' EXIT
curl --fail --silent --show-error --location --retry 5 --retry-connrefused --output "$download" "$DOWNLOAD_URL"
echo "$DOWNLOAD_SHA256  $download" | sha256sum --check --quiet

install -D --mode=755 "$download" "$program"
install -D --mode=600 /dev/stdin "$ROOT/etc/ec2-spot-worker.yml" <<<"$CONFIGURATION"
"$program" config check --config "$ROOT/etc/ec2-spot-worker.yml"
mkdir -p "$units"
"$program" units --dir "$units"

systemctl ${ROOT:+--root="$ROOT"} enable ec2-spot-worker-disks.service ec2-spot-worker.service
if [[ $START == yes ]]; then
  systemctl daemon-reload
  wanted=(ec2-spot-worker-disks.service ec2-spot-worker.service)
  if systemctl cat docker.service >/dev/null 2>&1; then
    # Docker moves to the instance's own disks, and starts again there.
    systemctl stop docker.service docker.socket containerd.service
    wanted+=(docker.service)
  fi
  # The instance may not have started as far as they need: they wait for that.
  systemctl start --no-block "${wanted[@]}"
fi
