#!/usr/bin/env bash
# The official IIIF validators, asked directly and through iiif-mender, as it is and under another host name. Fails if
# anything passes directly that does not pass through us. Needs Python 3.10 or newer and PyPI; nothing is left behind
# but $VALIDATORS_HOME (default: target/validators).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
home=${VALIDATORS_HOME:-target/validators}
[[ -x $home/bin/python ]] || python3 -m venv "$home"
"$home/bin/pip" -q install --disable-pip-version-check -r tests/validators/requirements.txt
cargo build -q --locked --workspace --bins
exec "$home/bin/python" tests/validators/compare.py "$home/bin" "${CARGO_TARGET_DIR:-target}/debug"
