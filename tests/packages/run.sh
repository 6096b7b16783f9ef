#!/usr/bin/env bash
# The packages as somebody gets them: made by deploy/release.sh, looked into, and then installed, run, upgraded, removed
# and purged in a fresh Debian (life.sh).
#
#   tests/packages/run.sh                  builds, installs, upgrades, removes
#   PROFDATA=FILE tests/packages/run.sh    with a profile that is there (deploy/profile.sh)
#
# Needs root, debootstrap, Debian's mirror, lintian, rpm, systemd-analyze (252 or later), and what deploy/release.sh needs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/root.sh"
cd "$here/../.."
say() { printf '== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

version=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"name":"iiif-mender","version":"([^"]+)".*/\1/')
later=$version+later
out=target/release-artifacts target=x86_64-unknown-linux-musl
deploy/release.sh
# The same program under a later version.
VERSION=$later PROFDATA=$out/iiif-mender-$version-$target.profdata deploy/release.sh
deb=$out/iiif-mender_$version-1_amd64.deb rpm=$out/iiif-mender-$version-1.x86_64.rpm program=target/package/iiif-mender

say "the program"
[[ $(ldd "$program" 2>&1) =~ statically\ linked|not\ a\ dynamic ]] || die "it is not static"
for path in "$PWD" "${CARGO_HOME:-$HOME/.cargo}" "$(rustc --print sysroot)"; do
  ! grep -Fqa "$path" "$program" || die "it knows this machine's $path"
done
(cd "$out" && sha256sum -c --quiet "iiif-mender-$version.sha256")

say "the units"
plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
# Their program and manual page are in the packages, not on this machine.
for unit in service socket; do
  sed 's|^\(Exec[A-Za-z]*=\)/usr/bin/iiif-mender .*|\1/bin/true|; /^Documentation=/d' deploy/*/"iiif-mender.$unit" >"$plain/iiif-mender.$unit"
done
systemd-analyze verify "$plain"/iiif-mender.{service,socket} 2>&1 | tee "$plain/said"
[[ ! -s $plain/said ]] || die "systemd-analyze verify has something to say"
systemd-analyze security --offline=yes --threshold=20 --no-pager deploy/systemd/iiif-mender.service >"$plain/said" || die "less safe than 2.0: $(tail -1 "$plain/said")"
tail -1 "$plain/said"

say "the Debian package"
lintian --fail-on error "$deb" || die "lintian"

say "the RPM"
rpm -K --nosignature "$rpm" || die "its digests"
rpm -qpl "$rpm" >"$plain/files"
for file in /usr/bin/iiif-mender /etc/iiif-mender/config.toml /usr/lib/systemd/system/iiif-mender.service \
  /usr/lib/sysusers.d/iiif-mender.conf /usr/share/man/man1/iiif-mender.1.gz /usr/share/bash-completion/completions/iiif-mender \
  /usr/share/zsh/site-functions/_iiif-mender /usr/share/fish/vendor_completions.d/iiif-mender.fish; do
  grep -qx "$file" "$plain/files" || die "it lacks $file"
done
[[ $(rpm -qpc "$rpm") == /etc/iiif-mender/config.toml ]] || die "its configuration would be overwritten"
! rpm -qpR "$rpm" | grep -E '^lib|GLIBC' || die "it wants libraries"
rpm -qp --scripts "$rpm" >"$plain/scripts"
for script in post preun postun; do sh -n "deploy/rpm/$script.sh"; done
grep -q 'signal=USR2' "$plain/scripts" || die "an upgrade would drop requests"
# What it holds needs nothing else: its files in a folder that has nothing.
mkdir "$plain/root"
rpm -i --root "$plain/root" --dbpath /db --nodeps --noscripts "$rpm" 2>/dev/null || die "it cannot be unpacked"
[[ $(chroot "$plain/root" /usr/bin/iiif-mender --version) == "iiif-mender $version" ]] || die "its program does not run"
chroot "$plain/root" /usr/bin/iiif-mender --config /etc/iiif-mender/config.toml config check

say "the tarball"
tar -xzOf "$out/iiif-mender-$version-$target.tar.gz" "iiif-mender-$version-$target/iiif-mender" | cmp - "$program" || die "another program, or none"

say "a life in a fresh $SUITE"
cargo build -q --locked -p iiif-mender-testbed
fresh_root packages
root=$ROOTS/packages
mkdir "$root/test"
cp "$deb" "$root/test/now.deb"
cp "$out/iiif-mender_$later-1_amd64.deb" "$root/test/later.deb"
cp target/debug/iiif-mender-testbed tests/packages/life.sh "$root/test/"
# What the package depends on, and curl for the test.
inside "$root" bash -ec 'apt-get update -qq; apt-get install -y -qq --no-install-recommends systemd-standalone-sysusers curl >/dev/null'
inside "$root" --offline /test/life.sh "$version"
say "all well"
