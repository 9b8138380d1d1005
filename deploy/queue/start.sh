#!/bin/sh
# Starts the queue with the password of its secret, which thus stands in no environment and no command line.
set -eu
umask 077
password=$(cat /run/secrets/redis_password)
[ -n "$password" ] || { echo "queue: the secret redis_password is empty; write a password into its file" >&2; exit 2; }
{
  cat /etc/fabula/queue.conf
  printf 'requirepass "%s"\n' "$password"
} >/tmp/queue.conf
exec valkey-server /tmp/queue.conf
