#!/usr/bin/env bash
# Makes what is released into target/release-artifacts/: a Debian package, an RPM, a tarball, all with the same static
# program, its bill of materials (CycloneDX), and checksums.
#
#   deploy/release.sh                      version of Cargo.toml
#   VERSION=0.2.0 deploy/release.sh        packages with another version, as the upgrade test makes them
#   PROFDATA=FILE deploy/release.sh        with a profile that deploy/profile.sh made earlier, from the same sources
#
# Needs musl-tools, rustup's target x86_64-unknown-linux-musl, what deploy/profile.sh needs, and:
# cargo install cargo-deb cargo-generate-rpm cargo-cyclonedx
# The same commit, toolchain, folder layout and profile (it is among the artifacts) give the same program: no path of this
# machine and no time is in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=x86_64-unknown-linux-musl
version=${VERSION:-$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"name":"iiif-mender","version":"([^"]+)".*/\1/')}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
RUSTFLAGS="--remap-path-prefix=$PWD=iiif-mender --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$(rustc --print sysroot)=rust"
# C sources too: SQLite, ring and mimalloc.
CFLAGS="-ffile-prefix-map=$PWD=iiif-mender -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=cargo"
export SOURCE_DATE_EPOCH RUSTFLAGS CFLAGS

out=target/release-artifacts
mkdir -p "$out"
name=iiif-mender-$version-$target
[[ -n ${PROFDATA:-} ]] || { PROFDATA=target/profile/$target.profdata; deploy/profile.sh "$PROFDATA" "$target"; }
# Under one name, whatever it was called; the same bytes are no reason to build anew.
for copy in "$out/$name.profdata" target/release.profdata; do cmp -s "$PROFDATA" "$copy" || cp "$PROFDATA" "$copy"; done
RUSTFLAGS="$RUSTFLAGS -Cprofile-use=$PWD/target/release.profdata" cargo build --locked --release --target "$target" --bin iiif-mender

package=target/package
rm -rf "$package" && mkdir -p "$package"
install -m 755 "target/$target/release/iiif-mender" "$package/iiif-mender"
strip --strip-all "$package/iiif-mender"
# The index stands where the user of the unit may write.
sed 's|^path = "iiif-mender.sqlite3"|path = "/var/lib/iiif-mender/iiif-mender.sqlite3"|' config.toml >"$package/config.toml"
"$package/iiif-mender" config defaults >"$package/defaults.toml"
"$package/iiif-mender" man --to "$package/man"
mkdir "$package/man-gz" && for page in "$package"/man/*.1; do gzip -9nc "$page" >"$package/man-gz/${page##*/}.gz"; done
"$package/iiif-mender" completions bash >"$package/iiif-mender.bash"
"$package/iiif-mender" completions zsh >"$package/_iiif-mender"
"$package/iiif-mender" completions fish >"$package/iiif-mender.fish"
printf 'iiif-mender (%s-1) stable; urgency=medium\n\n  * See /usr/share/doc/iiif-mender/changelog.gz.\n\n -- %s  %s\n' "$version" \
  "$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)" "$(date -uRd "@$SOURCE_DATE_EPOCH")" >"$package/changelog"

deb=$out/iiif-mender_$version-1_amd64.deb rpm=$out/iiif-mender-$version-1.x86_64.rpm
# What is packed is what lies in target/package/: neither packager builds.
cargo deb --no-build --no-strip --target "$target" --deb-version "$version-1" --output "$deb"
cargo generate-rpm --target "$target" --set-metadata "version = \"$version\"" --source-date "$SOURCE_DATE_EPOCH" --output "$rpm"

rm -rf "target/$name" && mkdir -p "target/$name"
cp -r "$package/iiif-mender" "$package/man" "$package/iiif-mender.bash" "$package/_iiif-mender" "$package/iiif-mender.fish" \
  README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE config.toml deploy/systemd deploy/socket deploy/sysusers.d "target/$name/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C target -c "$name" | gzip -9n >"$out/$name.tar.gz"

cargo cyclonedx --format json --target "$target" --override-filename sbom --manifest-path Cargo.toml --quiet
sed "s|path+file://$PWD|path+file:///iiif-mender|g" sbom.json >"$out/iiif-mender-$version.cdx.json"
rm -f sbom.json tests/testbed/sbom.json

(cd "$out" && sha256sum "iiif-mender_$version-1_amd64.deb" "iiif-mender-$version-1.x86_64.rpm" "$name.tar.gz" "$name.profdata" "iiif-mender-$version.cdx.json" |
  tee "iiif-mender-$version.sha256")
