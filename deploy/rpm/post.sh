systemd-sysusers iiif-mender.conf
install -d -o iiif-mender -g iiif-mender -m 0750 /var/lib/iiif-mender
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ "$1" -eq 1 ]; then
        systemctl --no-reload preset iiif-mender.service || :
    else
        # An upgrade loses no request: the new program takes the sockets over from the old one.
        systemctl kill --kill-whom=main --signal=USR2 iiif-mender.service || :
    fi
fi
