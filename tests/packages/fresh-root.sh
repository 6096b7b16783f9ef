#!/usr/bin/env bash
# The README on a machine that has nothing: a fresh Debian with ca-certificates and what README.md names under "Try it"
# (Rust, a C compiler), a clone of what is committed here, and then README's commands as they stand.
#
#   tests/packages/fresh-root.sh            the clone's head
#   REVISION=v0.1.0 tests/packages/fresh-root.sh
#
# Needs root, debootstrap, git, Debian's mirror, and the registries of crates and npm. Rust is this machine's toolchain,
# mounted read-only: what rustup would have put there. An hour on two cores.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/root.sh"
repository=$(git -C "$here" rev-parse --show-toplevel)
TOOLCHAIN=$(cd "$repository" && rustc --print sysroot)
export TOOLCHAIN

fresh_root fresh
root=$ROOTS/fresh
git clone -q --no-hardlinks "$repository" "$root/root/iiif-mender"
git -C "$root/root/iiif-mender" checkout -q "${REVISION:-$(git -C "$repository" rev-parse HEAD)}"
echo "== $(git -C "$root/root/iiif-mender" log -1 --format='%h %s') in a fresh $SUITE"

inside "$root" bash -ec 'apt-get update -qq; apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null'

# The commands of "Try it", in their order. The demo goes on until it is stopped; --once ends it after its story.
mapfile -t commands < <(sed -n '/^## Try it/,/^## Run/p' "$repository/README.md" | sed -n '/^```sh$/,/^```$/p' | grep -v '^```')
[[ ${#commands[@]} -eq 2 && ${commands[0]} == *demo ]] || { echo "README.md has other commands than expected: ${commands[*]}" >&2; exit 1; }
commands[0]+=" -- --once"
for command in "${commands[@]}"; do
  echo "== $command"
  inside "$root" bash -c "cd ~/iiif-mender && $command"
done
echo "== all well"
