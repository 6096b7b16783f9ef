# shellcheck shell=bash
# Clean Debian roots for the tests of this folder. Sourced; needs root, debootstrap and util-linux.

ROOTS=${ROOTS:-/var/tmp/iiif-mender-roots}
SUITE=${SUITE:-bookworm}
MIRROR=${MIRROR:-http://deb.debian.org/debian}

[[ $(id -u) -eq 0 ]] || { echo "needs root: a clean system is made and entered" >&2; exit 2; }

# fresh_root NAME: a minimal system with ca-certificates in $ROOTS/NAME. It is made once and copied then.
fresh_root() {
  local model=$ROOTS/$SUITE.model root=$ROOTS/$1
  if [[ ! -d $model ]]; then
    mkdir -p "$ROOTS"
    rm -rf "$model.new"
    debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$model.new" "$MIRROR" >"$ROOTS/debootstrap.log" ||
      { echo "debootstrap failed: $ROOTS/debootstrap.log" >&2; return 1; }
    # Without it what apt-get starts would run on this machine's ports.
    printf '#!/bin/sh\nexit 101\n' >"$model.new/usr/sbin/policy-rc.d"
    chmod 755 "$model.new/usr/sbin/policy-rc.d"
    mv "$model.new" "$model"
  fi
  rm -rf "$root"
  cp -a "$model" "$root"
  # debootstrap writes none, every installer does.
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
  # It reaches and trusts what this machine does.
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
}

# inside ROOT [--offline] COMMAND…: runs it there, with processes of its own, and with --offline with nothing but a
# loopback of its own. All that it starts ends with it. Settings for networks go in by name; no others do.
inside() {
  local root=$1 names=(--mount --pid --fork --kill-child) pass=() name
  shift
  [[ $1 == --offline ]] && { shift; names+=(--net); }
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE NODE_EXTRA_CA_CERTS CARGO_BUILD_JOBS; do
    [[ -v $name ]] && pass+=("$name=${!name}")
  done
  # shellcheck disable=SC2016 # it is for the inner shell
  unshare "${names[@]}" bash -euc '
    root=$1; shift
    ip link set lo up 2>/dev/null || true
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    [[ ! -d ${TOOLCHAIN:-} ]] || { mkdir -p "$root/opt/rust"; mount --bind -o ro "$TOOLCHAIN" "$root/opt/rust"; }
    exec chroot "$root" "$@"
  ' - "$root" env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${pass[@]}" "$@"
}
