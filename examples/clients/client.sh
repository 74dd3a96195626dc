#!/bin/sh
# Sees what a gateway says of itself, and switches one of its points on, with mosquitto's clients (mosquitto-clients):
#
#   client.sh pump-house-7 relays/pump       MQTT_HOST, MQTT_PORT, MQTT_USER, MQTT_PASSWORD say where and who
#
# Ends with 0 when the command was done.
set -u
root=sluicegate/$1 point=sluicegate/$1/$2
set -- -h "${MQTT_HOST:-localhost}" -p "${MQTT_PORT:-1883}" -q 1
[ -z "${MQTT_USER:-}" ] || set -- "$@" -u "$MQTT_USER" -P "${MQTT_PASSWORD:-}"

# What is retained comes at once: presence, health, and the last reading.
mosquitto_sub "$@" -W 20 -C 3 -v -t "$root/status" -t "$root/health" -t "$point" || exit 1

# An id is against acting twice, a ttl against acting late. The same command again, until its outcome is told.
id=$(cat /proc/sys/kernel/random/uuid)
heard=$(mktemp)
mosquitto_sub "$@" -t "$point/outcome" >"$heard" &
trap 'kill $!; rm "$heard"' EXIT
for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    mosquitto_pub "$@" -t "$point/set" -m "{\"value\":true,\"id\":\"$id\",\"ttl\":\"10s\"}"
    sleep 1
    outcome=$(grep "\"id\":\"$id\"" "$heard" | grep -v '"outcome":"rejected"' | head -n 1)
    [ -z "$outcome" ] || break
done
echo "${outcome:-nobody answered}"
echo "$outcome" | grep -q '"outcome":"done"'
