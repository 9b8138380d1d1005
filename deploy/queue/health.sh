#!/bin/sh
# Whether the queue answers; -e makes a refusal a failure.
REDISCLI_AUTH=$(cat /run/secrets/redis_password) exec valkey-cli -e ping
