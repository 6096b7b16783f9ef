#!/usr/bin/env bash
# The life of the Debian package, called by run.sh inside a fresh root without a network: life.sh VERSION
set -euo pipefail
version=$1
say() { printf -- '-- %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; [[ ! -s /test/log ]] || tail -5 /test/log >&2; exit 1; }
# patiently COMMAND…: until it succeeds, a minute at most.
patiently() {
  local end=$((SECONDS + 60))
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $end ]] || die "never: $*"
    sleep 0.2
  done
}
unit=/usr/lib/systemd/system/iiif-mender.service
config=/etc/iiif-mender/config.toml
state=/var/lib/iiif-mender

say "install"
dpkg -i /test/now.deb
while read -r want path; do
  [[ $(stat -c %U:%G:%a "$path") == "$want" ]] || die "$path is $(stat -c %U:%G:%a "$path"), not $want"
done <<END
root:root:755 /usr/bin/iiif-mender
root:root:644 $config
root:root:644 $unit
root:root:644 /usr/lib/sysusers.d/iiif-mender.conf
iiif-mender:iiif-mender:750 $state
END
# Debian's minimal systems leave documents out when they unpack; the package has them.
for file in man/man1/iiif-mender.1.gz bash-completion/completions/iiif-mender zsh/vendor-completions/_iiif-mender \
  fish/vendor_completions.d/iiif-mender.fish doc/iiif-mender/copyright doc/iiif-mender/changelog.Debian.gz; do
  dpkg -L iiif-mender | grep -qx "/usr/share/$file" || die "no $file"
done
[[ $(iiif-mender --version) == "iiif-mender $version" ]] || die "$(iiif-mender --version)"
iiif-mender --config "$config" config check
[[ $(getent passwd iiif-mender | cut -d: -f7) == */nologin ]] || die "its user may log in"

# As systemd would: the unit's user, folder, environment and command.
as_the_unit_does() {
  local command
  command=$(sed -n "s/^$1=//p" "$unit")
  mapfile -t environment < <(sed -n 's/^Environment=//p' "$unit")
  cd "$(sed -n 's/^WorkingDirectory=//p' "$unit")"
  # shellcheck disable=SC2086 # words, as in the unit
  exec setpriv --reuid "$(sed -n 's/^User=//p' "$unit")" --regid "$(sed -n 's/^Group=//p' "$unit")" --init-groups \
    --no-new-privs env -i PATH=/usr/bin:/bin "${environment[@]}" $command
}

say "run, with the configuration as it was shipped"
/test/iiif-mender-testbed --public-base http://localhost:8080 --images 127.0.0.1:8182 --service 127.0.0.1:9000 --control 127.0.0.1:9999 >/test/testbed.log 2>&1 &
patiently curl -fs http://127.0.0.1:9999/
(as_the_unit_does ExecStart) >/test/log 2>&1 &
patiently curl -fs http://127.0.0.1:9090/readyz
iiif-mender --config "$config" top --once >/dev/null || die "top does not find it"
manifest=http://localhost:8080/iiif-service/fedora/presentation/obj/minutes
# heals_a_page: an image that the image server does not have any more comes back through us.
heals_a_page() {
  local page path
  page=$(curl -fs "$manifest" | grep -o 'http://localhost:8080/iiif/2/[^"]*/full/full/0/default.jpg' | head -1)
  path=${page#http://localhost:8080}
  patiently learned "$path"
  curl -fs "http://127.0.0.1:8182$path" >/test/alive
  curl -fs -X POST http://127.0.0.1:9999/expire >/dev/null
  [[ $(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:8182$path") == 404 ]] || die "it does not expire"
  curl -fs -D /test/head "$page" >/test/healed || die "it does not heal: $(head -1 /test/head)"
  grep -iq '^heal-status: healed' /test/head || die "no heal: $(cat /test/head)"
  cmp /test/alive /test/healed || die "another picture"
}
learned() {
  local identifier=${1#/iiif/2/}
  setpriv --reuid iiif-mender --regid iiif-mender --init-groups iiif-mender --config "$config" index lookup "${identifier%%/*}"
}
heals_a_page
[[ $(stat -Lc %U "$state/iiif-mender.sqlite3") == iiif-mender ]] || die "the index is not its own"

say "upgrade, with an edited configuration"
sed -i 's/^public_hosts = .*/public_hosts = ["localhost:8080", "iiif.example.org"]/' "$config"
sha256sum "$config" >/test/edited
dpkg -i /test/later.deb </dev/null
[[ $(dpkg-query -W -f '${Version}' iiif-mender) == "$version+later-1" ]] || die "not upgraded"
sha256sum -c --quiet /test/edited
[[ ! -e $config.dpkg-dist && ! -e $config.dpkg-new ]] || die "the administrator would be asked"
# What the package tells systemd to do: the new program takes over, and nothing is refused.
before=$(pidof iiif-mender)
kill -USR2 "$before"
patiently test ! -e "/proc/$before"
curl -fs http://127.0.0.1:9090/readyz >/dev/null || die "nobody took over"
[[ $(readlink "/proc/$(pidof iiif-mender)/exe") == /usr/bin/iiif-mender ]] || die "the old program still runs"
heals_a_page

say "remove"
kill -TERM "$(pidof iiif-mender)"
patiently bash -c '! pidof iiif-mender'
dpkg -r iiif-mender
[[ ! -e /usr/bin/iiif-mender && ! -e $unit ]] || die "the program stays"
sha256sum -c --quiet /test/edited
[[ -e $state/iiif-mender.sqlite3 ]] || die "the state is lost"

say "purge"
dpkg -P iiif-mender
for path in /etc/iiif-mender "$state" /usr/share/doc/iiif-mender; do [[ ! -e $path ]] || die "$path stays"; done
[[ -z $(find / -xdev -path /test -prune -o -path /proc -prune -o -name '*iiif-mender*' -print) ]] ||
  die "left: $(find / -xdev -path /test -prune -o -path /proc -prune -o -name '*iiif-mender*' -print)"
