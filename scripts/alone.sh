#!/bin/sh
# Run a command that writes into this folder; if another one is at work, wait for it.
# The lock is on the Makefile: it is there before anything is built and after a clean,
# and the system releases it however the command ends.
set -eu

command -v flock >/dev/null || exec "$@" # not a Linux with util-linux
status=0
flock --close --nonblock --conflict-exit-code 75 Makefile "$@" || status=$?
[ $status = 75 ] || exit $status
echo "make: another build is at work in this folder; waiting for its end" >&2
exec flock --close Makefile "$@"
