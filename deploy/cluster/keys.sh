#!/bin/sh
# Makes what the processes of a cluster share, where it is not there yet: the secrets of voters and tokens, keys of the
# desk and of a source, and one that may read metrics. Runs in the service `keys`.
set -eu
cd /secrets

secret() { # secret FILE: 32 bytes in hexadecimal
    [ -s "$1" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$1"
}

key() { # key NAME ROLE...: its text goes into a file, the server gets a hash
    name=$1
    shift
    [ -s "$name.key" ] || canvass key add --data . --name "$name" "$@" > "$name.key"
}

umask 077
secret voters.secret
secret tokens.secret
# It takes two of the desk to call a contest.
key desk-1 --role desk
key desk-2 --role desk
key source --role source
key monitor --role monitor
chown -R 10001 .
